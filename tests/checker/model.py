"""A server that keeps every promise, in a few lines: it writes histories that must pass, and that the mutations then break.

It is a log per conversation under a clock that ticks at every step. Devices go offline and resume; members come and go; sends are
sometimes left without an answer, having been stored or not.
"""

import random
from collections import defaultdict
from dataclasses import dataclass, field

from tests.checker.history import (
    Call,
    CaughtUp,
    Entry,
    Membership,
    Opened,
    Operation,
    Page,
    Receipt,
    Receive,
    Run,
    Send,
)

DIRECT, GROUP = "d-alice-bob", "g-all"
DEVICES = {"alice/phone": "alice", "alice/laptop": "alice", "bob/phone": "bob", "carol/phone": "carol"}
_PAGE = 4


@dataclass
class Device:
    """One device: what it was given, and since when it is away (None while it is connected)."""

    name: str
    user: str
    given: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    away: bool = False


class PerfectServer:
    """Writes a history of `steps` random steps.

    Args:
        seed: of everything random.
    """

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._time = 0.0
        self._logs: dict[str, list[Entry]] = {DIRECT: [], GROUP: []}
        self._spans: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
        self._numbers: dict[str, int] = defaultdict(int)
        self._marks: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
        self.devices = {name: Device(name, user) for name, user in DEVICES.items()}
        self.history: list[Operation] = [Run(seed)]

    def run(self, steps: int) -> list[Operation]:
        """Open, take random steps, let all catch up, read everything back."""
        self._open()
        actions = [self._send] * 6 + [self._flap] * 2 + [self._page, self._mark, self._change_members, self._send_unanswered]
        for _ in range(steps):
            self._rng.choice(actions)()
        for device in self.devices.values():
            self._resume(device)
            for conversation in self._logs:
                self._sweep(device, conversation)
        return self.history

    def _open(self) -> None:
        for device in self.devices.values():
            self.history.append(Opened(device.name, device.user, self._tick()))
        self.history.append(Membership("alice/phone", DIRECT, "direct", ("alice", "bob"), self._tick(), self._tick(), "done"))
        self._spans[DIRECT, "alice"] = [[1, float("inf")]]
        self._spans[DIRECT, "bob"] = [[1, float("inf")]]
        self._member_event("created", ("alice", "bob"))
        for answer in range(2):
            self.history.append(Call("alice/phone", "alice", "create_group", "r1", "all", GROUP, answer, self._tick()))

    def _tick(self) -> float:
        self._time += 0.01
        return self._time

    def _send(self, *, answered: bool = True) -> None:
        device = self._rng.choice([one for one in self.devices.values() if not one.away] or [self.devices["alice/phone"]])
        conversation = self._rng.choice([where for where in self._logs if self._inside(where, device.user)] or [""])
        if not conversation:
            return
        number = self._numbers[device.name] = self._numbers[device.name] + 1
        name, content, invoked = f"{device.name}-{number}", f"text {number} of {device.name}", self._tick()
        if not answered and self._rng.random() < 0.5:  # lost on its way in
            self.history.append(Send(device.name, device.user, number, conversation, name, content, invoked))
            return
        entry = self._append(conversation, device.user, name, content)
        send = Send(device.name, device.user, number, conversation, name, content, invoked)
        if answered:
            send = Send(*_head(send), self._tick(), "stored", entry.seq, entry.message_id)
        self.history.append(send)
        self._push(conversation)

    def _send_unanswered(self) -> None:
        self._send(answered=False)

    def _append(self, conversation: str, sender: str, name: str, content: str) -> Entry:
        seq = len(self._logs[conversation]) + 1
        entry = Entry(seq, f"{conversation}:{seq}", sender, name, content)
        self._logs[conversation].append(entry)
        return entry

    def _member_event(self, change: str, users: tuple[str, ...]) -> None:
        seq = len(self._logs[GROUP]) + 1
        invoked = self._tick()
        self._logs[GROUP].append(Entry(seq, f"{GROUP}:{seq}", "alice", "", kind="membership", change=change, users=users))
        for user in users:
            if change in ("created", "added"):
                self._spans[GROUP, user].append([seq, float("inf")])
            else:
                self._spans[GROUP, user][-1][1] = seq
        self._push(GROUP)
        self.history.append(Membership("alice/phone", GROUP, change, users, invoked, self._tick(), "done"))

    def _change_members(self) -> None:
        self._member_event("removed" if self._inside(GROUP, "carol") else "added", ("carol",))

    def _inside(self, conversation: str, user: str) -> bool:
        spans = self._spans[conversation, user]
        return bool(spans) and spans[-1][1] == float("inf")

    def _visible(self, conversation: str, user: str) -> list[Entry]:
        spans = self._spans[conversation, user]
        return [entry for entry in self._logs[conversation] if any(first <= entry.seq <= last for first, last in spans)]

    def _push(self, conversation: str) -> None:
        for device in self.devices.values():
            if not device.away:
                self._give(device, conversation, "live")

    def _give(self, device: Device, conversation: str, via: str) -> None:
        for entry in self._visible(conversation, device.user):
            if entry.seq > device.given[conversation]:
                device.given[conversation] = entry.seq
                self.history.append(Receive(device.name, device.user, conversation, entry, self._tick(), via))

    def _flap(self) -> None:
        device = self._rng.choice(list(self.devices.values()))
        if device.away:
            self._resume(device)
        else:
            device.away = True

    def _resume(self, device: Device) -> None:
        device.away = False
        invoked = self._tick()
        for conversation in self._logs:
            self._give(device, conversation, "sync")
        self.history.append(CaughtUp(device.name, device.user, invoked, self._tick(), {}))

    def _mark(self) -> None:
        member = self._rng.choice(["alice", "bob"])
        marks, last = self._marks[DIRECT, member], len(self._logs[DIRECT])
        marks[0] = self._rng.randint(marks[0], last)
        marks[1] = self._rng.randint(marks[1], marks[0])
        for device in self.devices.values():
            if device.user in ("alice", "bob") and not device.away:
                self.history.append(Receipt(device.name, device.user, DIRECT, member, marks[0], marks[1], self._tick()))

    def _page(self) -> None:
        device = self._rng.choice(list(self.devices.values()))
        conversation = self._rng.choice([where for where in self._logs if self._visible(where, device.user)] or [""])
        if conversation:
            self._before(device, conversation, None, "")

    def _sweep(self, device: Device, conversation: str) -> None:
        visible = self._visible(conversation, device.user)
        if not visible:
            return
        position: int | None = 0
        while position is not None:
            page = self._after(device, conversation, position)
            position = page.entries[-1].seq if page.more else None
        position = self._before(device, conversation, None, "final")
        while position is not None:
            position = self._before(device, conversation, position, "final")

    def _after(self, device: Device, where: str, position: int) -> Page:
        found = [entry for entry in self._visible(where, device.user) if entry.seq > position]
        times = self._tick(), self._tick()
        page = Page(device.name, device.user, where, "after", position, tuple(found[:_PAGE]), len(found) > _PAGE, *times, "final")
        self.history.append(page)
        return page

    def _before(self, device: Device, where: str, position: int | None, sweep: str) -> int | None:
        found = [entry for entry in self._visible(where, device.user) if position is None or entry.seq < position]
        part, times = tuple(found[-_PAGE:]), (self._tick(), self._tick())
        self.history.append(Page(device.name, device.user, where, "before", position, part, len(found) > _PAGE, *times, sweep))
        return part[0].seq if len(found) > _PAGE else None


def _head(send: Send) -> tuple[str, str, int, str, str, str, float]:
    return send.client, send.user, send.number, send.conversation, send.client_msg_id, send.content, send.invoked
