"""Proof that a generator is not what a bench measured: the same generator against a mesh that does nothing (`bench.sink`).

Each gives how many times what the real mesh was offered, or made, the generator drives there. The sink takes a core of its own, as
the mesh would, so what comes out is the least that the generator can do.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from bench.remote import generator
from bench.sink import sink

HOW = "against a server that does nothing"
LATE_MS = 10.0  # p99: later than this, and the generator no longer keeps its own times
FOLLOWED = 0.9  # of the offered rate: a short step rounds
SECONDS = 2.0
_FIRST, _GROWTH, _STEPS = 1.25, 1.5, 4
_AWAIT_SECONDS = 30.0


class Headroom(NamedTuple):
    """How many times what the mesh did, and how that was tried."""

    times: float
    how: str


def people(count: int) -> dict[str, str]:
    """So many users with what the sink takes for their tokens."""
    return {f"sink-{n}": f"sink-{n}" for n in range(count)}


def of_chat(users: int, message_bytes: int, mix: str, offered: float) -> Headroom:
    """The chat generator's; `offered` is messages a second."""
    with sink() as (_, url), generator() as load:
        load.do("connect", url=url, tokens=people(users), message_bytes=message_bytes, mix=mix)
        return search(lambda rate: load.do("step", rate=rate, seconds=SECONDS), offered, "stored_rate", 1)


def of_members(members: int, senders: int, message_bytes: int, offered: float) -> Headroom:
    """Those who are a large group; `offered` is messages a second, each to all others."""
    with sink() as (_, url), generator("bench.members") as load:
        load.do("connect", url=url, tokens=people(members))
        load.do("group", senders=senders, message_bytes=message_bytes)
        return search(lambda rate: load.do("span", rate=rate, seconds=SECONDS), offered, "delivered_rate", members - 1)


def of_returners(sessions: int, at_once: int, group: int, returned: float) -> Headroom:
    """Those who come back; `returned` is sessions a second as fast as it went with the mesh."""
    with sink() as (_, url), generator("bench.returners") as load:
        load.do("connect", url=url, tokens=people(sessions), group=group)
        load.do("drop")
        account = load.do("return", at_once=at_once, straight=True)
    return Headroom(sessions / account["seconds"] / returned, HOW)


def of_listeners(count: int, size: int, delivered: float) -> Headroom:
    """Those who are shown a notification; `delivered` is deliveries a second with the mesh."""
    with sink() as (process, url), generator("bench.listeners") as load:
        load.do("connect", url=url, tokens=people(count))
        assert process.stdin is not None  # noqa: S101
        process.stdin.write(f"all {size}\n")
        process.stdin.flush()
        seen = load.do("await", name="all", count=count, seconds=_AWAIT_SECONDS)
    return Headroom(count / max(1e-9, seen["last"] - seen["first"]) / delivered, HOW)


def search(step: Callable[[float], dict[str, Any]], offered: float, moved: str, each: int) -> Headroom:
    """Try higher rates until the generator is late, or the sink is full."""
    rate, best, lateness = offered * _FIRST, 0.0, 0.0
    for _ in range(_STEPS):
        account = step(rate)
        late, share = account["lateness"]["p99"], account[moved] / each / offered
        if best and (late > LATE_MS or account[moved] < FOLLOWED * rate * each):
            break
        best, lateness, rate = max(best, share), late, rate * _GROWTH
    return Headroom(best, f"{HOW}, {best * offered:,.0f} messages/s, p99 {lateness:.1f} ms late")
