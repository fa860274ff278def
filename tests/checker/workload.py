"""People talking at random: devices come and go, members are added and removed, messages are edited, history is read meanwhile.

Everything random comes from one seed; what the network and the servers do in between does not, so a seed repeats the intentions of
a run and not its interleaving. The phases: `open`, `work` (as faults happen), `settle` (they are over: all answers and all messages
arrive), `read_back` (everyone reads all history, both ways).
"""

import asyncio
import contextlib
import itertools
import random
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tests.checker.api import Api, RefusedError, entry_of
from tests.checker.device import Device
from tests.checker.history import Call, Failure, Membership, Page
from tests.checker.recorder import Recorder
from tidings_client import direct_conversation_id

_PAGE = 20  # small, so that a sweep is many pages
_ATTEMPTS = 40
_RETRY_SECONDS = 0.25
_AWAY_SECONDS = 0.5
_PASSING = {"UNAVAILABLE", "OVERLOADED"}
_UNREACHABLE = (aiohttp.ClientError, OSError, TimeoutError)


@dataclass(frozen=True, slots=True)
class Plan:
    """How many, and how lively.

    Attributes:
        clients: devices in all.
        second_devices: users who have two of them.
        directs, groups: conversations.
        pause: mean seconds between two actions of a device.
    """

    clients: int = 20
    second_devices: int = 4
    directs: int = 10
    groups: int = 3
    pause: float = 0.15


@dataclass
class Place:
    """A conversation and who talks there. `guest` (groups only) is added and removed again and again by the owner, `members[0]`."""

    conversation: str
    members: list[str]
    guest: str = ""
    inside: set[str] = field(default_factory=set)


class Workload:
    """See the module.

    Args:
        url: the balancer's.
        token: gives a user's token.
        folder: for the devices' state files.
        rng: source of all intentions.
    """

    def __init__(
        self, url: str, token: Callable[[str], str], folder: Path, recorder: Recorder, rng: random.Random, plan: Plan | None = None
    ) -> None:
        self._url, self._token, self._folder, self._recorder, self._rng = url, token, folder, recorder, rng
        self._plan = plan or Plan()
        run = secrets.token_hex(3)  # the same seed twice at one server must not meet itself
        self.users = [f"{run}-user{n}" for n in range(self._plan.clients - self._plan.second_devices)]
        self.devices: list[Device] = []
        self.places: list[Place] = []
        self._apis: dict[str, Api] = {}
        self._acting: list[asyncio.Task[None]] = []
        self._enough = asyncio.Event()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """All users are there, with their devices open and their conversations agreed."""
        async with aiohttp.ClientSession() as session:
            self._apis = {user: Api(session, self._url, self._token(user)) for user in self.users}
            await self._agree()
            for user, name in self._device_names():
                state = self._folder / f"{name.replace('/', '.')}.sqlite"
                self.devices.append(Device(name, user, self._url, self._token(user), state, self._recorder))
            await asyncio.gather(*(device.open() for device in self.devices))
            try:
                yield
            finally:
                await asyncio.gather(*(device.finish() for device in self.devices))

    async def work(self, seconds: float) -> None:
        """Everyone acts at random for so long; what they are at then, `settle` awaits."""
        work = [self._act(device, random.Random(self._rng.random())) for device in self.devices]
        work += [self._change_members(place, random.Random(self._rng.random())) for place in self.places if place.guest]
        self._acting += [asyncio.create_task(one) for one in work]
        await asyncio.sleep(seconds)
        self._enough.set()

    async def settle(self, timeout: float) -> bool:
        """Wait until every send is answered and every device has everything; False when it did not come to that."""
        async with asyncio.timeout(timeout):
            await asyncio.gather(*self._acting)
        await asyncio.gather(*(device.open() for device in self.devices if device.client is None))
        answered = await self._recorder.wait_for(lambda: not any(device.unanswered for device in self.devices), timeout)
        wanted = {(one.name, where): seq for one in self.devices for where, seq in (await self._last_seqs(one.user)).items()}
        tops = self._recorder.tops
        return answered and await self._recorder.wait_for(lambda: all(tops[key] >= seq for key, seq in wanted.items()), timeout)

    async def read_back(self) -> None:
        """Every user reads every conversation, upwards and downwards."""
        await asyncio.gather(*(self._sweep(user) for user in self.users))

    def _device_names(self) -> list[tuple[str, str]]:
        first = [(user, f"{user}/phone") for user in self.users]
        return first + [(user, f"{user}/laptop") for user in self.users[: self._plan.second_devices]]

    async def _agree(self) -> None:
        pairs = list(itertools.combinations(self.users, 2))
        for one, other in self._rng.sample(pairs, min(self._plan.directs, len(pairs))):
            conversation, now = direct_conversation_id(one, other), self._recorder.now()
            self.places.append(Place(conversation, [one, other]))
            self._recorder.add(Membership(one, conversation, "direct", (one, other), now, now, "done"))
        for number in range(self._plan.groups):
            self.places.append(await self._open_group(number))

    async def _open_group(self, number: int) -> Place:
        """Create a group, twice with one request_id; the last of those drawn stays outside, as its guest to be."""
        owner, *others, guest = self._rng.sample(self.users, min(7, len(self.users)))
        answers = set()
        for _ in range(2):
            invoked = self._recorder.now()
            group = await self._apis[owner].create_group(f"{owner}-{number}", f"group {number}", others)
            answers.add(group.conversation_id)
            body = ",".join(others)
            call = Call(
                owner, owner, "create_group", f"{owner}-{number}", body, group.conversation_id, invoked, self._recorder.now()
            )
            self._recorder.add(call)
        return Place(answers.pop(), [owner, *others], guest)

    async def _act(self, device: Device, rng: random.Random) -> None:
        actions = [self._send] * 30 + [self._mark] * 4 + [self._amend] * 2 + [self._page] * 3 + [self._leave, self._type]
        while await self._pause(rng.expovariate(1 / self._plan.pause)):
            place = rng.choice([one for one in self.places if device.user in one.members] or self.places)
            if device.user in place.members:
                await rng.choice(actions)(device, place, rng)

    async def _pause(self, seconds: float) -> bool:
        """Wait so long, or until it is enough; whether to go on."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._enough.wait(), seconds)
        return not self._enough.is_set()

    async def _send(self, device: Device, place: Place, rng: random.Random) -> None:
        direct = not place.guest and rng.random() < 0.3
        to = next(user for user in place.members if user != device.user) if direct else place.conversation
        if not place.guest and device.own.get(place.conversation) is None:
            to = next(user for user in place.members if user != device.user)  # may not exist before its first message
        for _ in range(rng.choice([1, 1, 1, 2, 5])):
            device.send(place.conversation, to, f"{rng.random():.12f} from {device.name}")

    async def _mark(self, device: Device, place: Place, rng: random.Random) -> None:
        top = self._recorder.tops[device.name, place.conversation]
        if device.client is not None and top:
            device.client.mark_read(place.conversation, rng.randint(1, top))

    async def _amend(self, device: Device, place: Place, rng: random.Random) -> None:
        own = device.own.get(place.conversation)
        if own:
            seq = own.pop(rng.randrange(len(own)))  # each at most once: what is deleted can't be edited
            text = None if rng.random() < 0.5 else f"{rng.random():.12f} edited"
            device.amend(place.conversation, seq, text)

    async def _page(self, device: Device, place: Place, rng: random.Random) -> None:
        self._acting.append(asyncio.create_task(self._look(device, place, rng)))

    async def _look(self, device: Device, place: Place, rng: random.Random) -> None:
        top = self._recorder.tops[device.name, place.conversation]
        direction = rng.choice(["after", "before"])
        position = rng.choice([None, rng.randint(1, max(1, top))]) if direction == "before" else rng.randint(0, top)
        try:
            await self._read_page(device.user, device.name, place.conversation, direction, position, "")
        except RefusedError as error:
            if error.reason != "INVALID_CHAT_ID":  # a direct conversation nobody has written in yet
                self._failed(device.name, "history", error)
        except _UNREACHABLE:
            return

    async def _leave(self, device: Device, place: Place, rng: random.Random) -> None:
        """Close the application; open it again a little later, with the same state file."""
        await device.close()
        await asyncio.sleep(rng.expovariate(1 / _AWAY_SECONDS))
        await device.open()

    async def _type(self, device: Device, place: Place, rng: random.Random) -> None:
        if device.client is not None:
            device.client.typing(place.conversation, typing=rng.random() < 0.7)

    async def _change_members(self, place: Place, rng: random.Random) -> None:
        """The owner adds and removes the guest in turns; a change whose outcome is unknown is made again first."""
        change = "added"
        while await self._pause(rng.expovariate(1 / (self._plan.pause * 6))):
            if await self._change(place, change):
                change = "removed" if change == "added" else "added"

    async def _change(self, place: Place, change: str) -> bool:
        owner, invoked = place.members[0], self._recorder.now()
        membership = Membership(owner, place.conversation, change, (place.guest,), invoked)
        at = self._recorder.add(membership)
        api = self._apis[owner]
        try:
            await (api.add if change == "added" else api.remove)(place.conversation, place.guest)
        except RefusedError as error:
            self._failed(owner, change, error)
            return False
        except _UNREACHABLE:
            return False
        self._recorder.complete(at, outcome="done")
        return True

    async def _last_seqs(self, user: str) -> dict[str, int]:
        last: Exception | None = None
        for _ in range(_ATTEMPTS):
            try:
                return {one.conversation_id: one.last_seq for one in await self._apis[user].conversations()}
            except (*_UNREACHABLE, RefusedError) as error:
                last = error
                await asyncio.sleep(_RETRY_SECONDS)
        raise TimeoutError(f"{user} could not list their conversations after the faults were over: {last!r}")

    async def _sweep(self, user: str) -> None:
        for where in await self._last_seqs(user):
            position: int | None = 0
            while position is not None:
                page = await self._final_page(user, where, "after", position)
                position = page.entries[-1].seq if page.more and page.entries else None
            page = await self._final_page(user, where, "before", None)
            while page.more and page.entries:
                page = await self._final_page(user, where, "before", page.entries[0].seq)

    async def _final_page(self, user: str, where: str, direction: str, position: int | None) -> Page:
        """A page, asked for again when the answer says so: a service may still be on its way back."""
        for _ in range(_ATTEMPTS - 1):
            try:
                return await self._read_page(user, user, where, direction, position, "final")
            except RefusedError as error:
                if error.reason not in _PASSING:
                    raise
                await asyncio.sleep(_RETRY_SECONDS)
        return await self._read_page(user, user, where, direction, position, "final")

    async def _read_page(self, user: str, client: str, where: str, direction: str, position: int | None, sweep: str) -> Page:
        invoked = self._recorder.now()
        answer = await self._apis[user].page(where, direction, position, _PAGE)
        entries = tuple(entry_of(entry) for entry in answer.entries)
        times = invoked, self._recorder.now()
        page = Page(client, user, where, direction, position, entries, answer.has_more, *times, sweep, answer.first_available_seq)
        self._recorder.add(page)
        return page

    def _failed(self, client: str, action: str, error: RefusedError) -> None:
        self._recorder.add(Failure(client, action, error.reason, error.retry_after, str(error), self._recorder.now()))
