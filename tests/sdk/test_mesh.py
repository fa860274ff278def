"""The client against the real services, all in this process."""

import asyncio
import contextlib
import itertools
import random
import shutil
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh.process import background
from tests.sdk.conftest import TIMEOUT, take, until, until_state
from tests.sdk.whole_mesh import Mesh, running
from tidings_client import (
    Client,
    ConnectionEvent,
    ConnectionState,
    ConversationEvent,
    Kind,
    Message,
    PresenceEvent,
    RequestFailed,
    SendFailed,
    Status,
    StatusEvent,
    TypingEvent,
)


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with running(tmp_path) as mesh:
        yield mesh


def _longest_gap(times: list[float]) -> float:
    return max(later - earlier for earlier, later in itertools.pairwise(times))


def client(mesh: Mesh, user_id: str, **options: object) -> Client:
    return Client(mesh.url, mesh.token(user_id), **options)  # type: ignore[arg-type]


def lose_sockets(*clients: Client) -> None:
    """As when a network goes away, without a goodbye."""
    for one in clients:
        assert one._http is not None
        assert one._http.connector is not None
        for connections in list(one._http.connector._acquired):
            if connections.transport is not None:
                connections.transport.abort()


async def test_chat_with_receipts_typing_and_presence(mesh: Mesh) -> None:
    async with client(mesh, "alice") as alice, client(mesh, "bob") as bob:
        await alice.caught_up()
        await bob.caught_up()
        told, heard = alice.events(), bob.events()
        [presence] = await alice.watch_presence(["bob"])
        assert presence == PresenceEvent("bob", True, None)
        sent = alice.send("bob", "hello")
        [message] = await take(bob, 1)
        assert (message.text, message.sender_id) == ("hello", "alice")
        alice.typing("bob")
        await until(heard, lambda event: isinstance(event, TypingEvent) and event.typing)
        bob.mark_read("alice", message.seq)
        await until(told, lambda event: isinstance(event, StatusEvent) and event.status is Status.READ)
        assert sent.status is Status.READ
        assert [one.status for one in await alice.history("bob")] == [Status.READ]


async def test_groups_with_members_who_come_and_go(mesh: Mesh) -> None:
    async with client(mesh, "alice") as alice, client(mesh, "bob") as bob, client(mesh, "carol") as carol:
        for one in (alice, bob, carol):
            await one.caught_up()
        events = bob.events()
        group = await alice.create_group("friends", ["bob"])
        name = group.conversation_id
        await until(events, lambda event: isinstance(event, ConversationEvent) and event.conversation.name == "friends")
        stored = await alice.send(name, "before carol").stored()
        told = alice.events()
        await alice.add_member(name, "carol")
        sent = alice.send(name, "with carol")
        [joined, first] = await take(carol, 2)
        assert (joined.kind, joined.seq, first.text) == (Kind.MEMBERSHIP, stored.seq + 1, "with carol")
        await until(
            told, lambda event: isinstance(event, StatusEvent) and event.status is Status.DELIVERED and event.seq == first.seq
        )
        assert sent.status is Status.DELIVERED
        await carol.leave(name)
        with pytest.raises(SendFailed, match="NOT_A_MEMBER"):
            await carol.send(name, "too late").stored()
        assert [one.conversation_id for one in await bob.conversations()] == [name]
        assert (await alice.rename(name, "old friends")).name == "old friends"
        with pytest.raises(RequestFailed, match="PERMISSION_DENIED"):
            await bob.remove_member(name, "alice")


async def test_edits_and_deletions(mesh: Mesh) -> None:
    async with client(mesh, "alice") as alice, client(mesh, "bob") as bob:
        await alice.caught_up()
        await bob.caught_up()
        first = await alice.send("bob", "helo").stored()
        second = await alice.send("bob", "oops").stored()
        await alice.edit("bob", first.seq, "hello")
        await alice.delete("bob", second.seq)
        await take(bob, 4)
        assert [(one.text, one.edited, one.deleted) for one in await bob.history("alice")] == [
            ("hello", True, False),
            ("", False, True),
        ]
        with pytest.raises(SendFailed, match="NOT_YOUR_MESSAGE"):
            await bob.edit("alice", first.seq, "never said")
        with pytest.raises(SendFailed, match="INVALID_RECIPIENT"):
            await alice.send("alice", "to myself").stored()


async def test_a_new_device_reads_what_was_and_history_pages_both_ways(mesh: Mesh) -> None:
    async with client(mesh, "alice") as alice:
        await alice.caught_up()
        sent = [alice.send("bob", str(number)) for number in range(250)]
        await asyncio.gather(*(one.stored() for one in sent))
    async with client(mesh, "bob", history_limit=30) as bob:
        assert [one.seq for one in await take(bob, 30)] == list(range(221, 251))
        await bob.caught_up()
        assert [one.seq for one in await bob.history("alice", before=101, limit=100)] == list(range(1, 101))
        assert [one.seq for one in await bob.history("alice", after=0, limit=250)] == list(range(1, 251))
        assert len(await bob.history("alice", limit=1000)) == 250


async def test_a_state_restored_from_a_backup_gets_again_what_it_lost(mesh: Mesh, tmp_path: Path) -> None:
    state, backup = tmp_path / "bob.sqlite", tmp_path / "backup.sqlite"
    async with client(mesh, "alice") as alice:
        await alice.caught_up()
        await alice.send("bob", "1").stored()
        async with client(mesh, "bob", state=state) as bob:
            assert [one.seq for one in await take(bob, 1)] == [1]
        shutil.copy(state, backup)
        await alice.send("bob", "2").stored()
        async with client(mesh, "bob", state=state) as bob:
            assert [one.seq for one in await take(bob, 1)] == [2]
        async with client(mesh, "bob", state=backup) as bob:
            assert [one.seq for one in await take(bob, 1)] == [2]


async def test_who_was_removed_while_away_comes_back_to_the_rest(mesh: Mesh, tmp_path: Path) -> None:
    state = tmp_path / "bob.sqlite"
    async with client(mesh, "alice") as alice:
        await alice.caught_up()
        group = (await alice.create_group("friends", ["bob"])).conversation_id
        async with client(mesh, "bob", state=state) as bob:
            await take(bob, 1)
        await alice.remove_member(group, "bob")
        await alice.send(group, "without bob").stored()
        await alice.send("bob", "just to you").stored()
        async with client(mesh, "bob", state=state) as bob:
            [only] = await take(bob, 1)
            assert only.text == "just to you"
            await bob.caught_up()
            assert [one.seq for one in await bob.history(group)] == [1], "what he had is still his"


async def test_one_client_floods_and_nothing_is_lost_or_reordered(mesh: Mesh) -> None:
    async with client(mesh, "alice") as alice, client(mesh, "bob") as bob:
        await alice.caught_up()
        await bob.caught_up()
        sent = [alice.send("bob", str(number)) for number in range(800)]
        assert [one.text for one in await take(bob, 800)] == [str(number) for number in range(800)]
        await asyncio.gather(*(one.stored() for one in sent))
        assert alice.state is ConnectionState.CAUGHT_UP


async def test_a_leaving_edge_hands_its_clients_on(mesh: Mesh) -> None:
    async with client(mesh, "alice") as alice, client(mesh, "bob") as bob:
        await alice.caught_up()
        await bob.caught_up()
        events = alice.events()
        await mesh.start_edge()
        leaving = asyncio.create_task(mesh.stop_edge(0))
        sent = [alice.send("bob", str(number)) for number in range(20)]
        assert [one.text for one in await take(bob, 20)] == [str(number) for number in range(20)]
        await asyncio.gather(*(one.stored() for one in sent))
        await until(events, lambda event: isinstance(event, ConnectionEvent) and event.state is ConnectionState.CAUGHT_UP)
        await leaving
        assert (await alice.send("bob", "on the other edge").stored()).seq == 21


async def test_who_is_sent_on_loses_no_time_and_asks_no_balancer(mesh: Mesh) -> None:
    async with client(mesh, "alice") as alice, client(mesh, "bob") as bob:
        await alice.caught_up()
        await bob.caught_up()
        await mesh.start_edge()
        await mesh.counted("balancer_edges", 2)
        leaving = asyncio.create_task(mesh.stop_edge(0))
        loop, arrivals, ticks = asyncio.get_running_loop(), list[float](), list[float]()

        async def tick() -> None:
            while True:
                ticks.append(loop.time())
                await asyncio.sleep(0.01)  # shows for how long the machine stood still

        number = 0
        async with background(tick()):
            while not leaving.done():
                sent = alice.send("bob", str(number))
                assert [one.text for one in await take(bob, 1)] == [str(number)]
                arrivals.append(loop.time())
                assert (await sent.stored()).seq == number + 1
                number += 1
        assert mesh.metric("connect_requests_total") == 2, "the first two, and none since"
        assert mesh.metric("placements_total") == 2
        assert _longest_gap(arrivals) - _longest_gap(ticks) < 1.0


async def test_who_is_cut_off_is_back_at_the_edge_without_a_second_knock(mesh: Mesh) -> None:
    async with client(mesh, "alice") as alice:
        for number in range(1, 4):
            await alice.caught_up()
            lose_sockets(alice)
            assert (await alice.send("bob", str(number)).stored()).seq == number
        assert mesh.metric("connect_requests_total") == 1


async def test_the_long_poll_carries_it_too(mesh: Mesh) -> None:
    async with client(mesh, "alice", long_poll="always") as alice, client(mesh, "bob") as bob:
        await alice.caught_up()
        await bob.caught_up()
        assert (await alice.send("bob", "by poll").stored()).seq == 1
        await bob.send("alice", "by socket").stored()
        assert [one.text for one in await take(alice, 2)] == ["by poll", "by socket"]
        events = bob.events()
        alice.typing("bob")
        await until(events, lambda event: isinstance(event, TypingEvent))


async def test_the_same_device_twice_replaces_the_first(mesh: Mesh) -> None:
    async with client(mesh, "alice", device_id="phone") as first:
        await first.caught_up()
        async with client(mesh, "alice", device_id="phone") as second:
            await second.caught_up()
            await until_state(first, ConnectionState.REPLACED)


async def test_a_session_outlives_its_token_by_a_fresh_one(mesh: Mesh) -> None:
    lifetimes = iter([61.0])  # warned of 60 s before its end
    renewed = asyncio.Event()

    async def token() -> str:
        lifetime = next(lifetimes, None)
        if lifetime is None:
            renewed.set()
        return mesh.token("alice", lifetime or 3600.0)

    async with Client(mesh.url, token) as alice:
        await alice.caught_up()
        await asyncio.wait_for(renewed.wait(), TIMEOUT)
        assert (await alice.send("bob", "still here").stored()).seq == 1


async def test_cut_sockets_lose_double_and_reorder_nothing(mesh: Mesh) -> None:
    """Three people in a direct chat and a group, whose sockets break at random while they talk."""
    chance = random.Random(7)
    names = ["alice", "bob", "carol"]
    async with contextlib.AsyncExitStack() as stack:
        clients = {name: await stack.enter_async_context(client(mesh, name)) for name in names}
        for one in clients.values():
            await one.caught_up()
        group = (await clients["alice"].create_group("all", ["bob", "carol"])).conversation_id
        rooms = {"alice": [group, "bob"], "bob": [group, "alice"], "carol": [group]}
        sent: dict[str, list[str]] = defaultdict(list)
        for number in range(150):
            name = chance.choice(names)
            to = chance.choice(rooms[name])
            text = f"{name} {number}"
            sent[clients[name].conversation_id(to)].append(text)
            clients[name].send(to, text)
            if number % 15 == 7:
                lose_sockets(clients[chance.choice(names)])
            await asyncio.sleep(0.002)
        direct = clients["alice"].conversation_id("bob")
        counts = {"alice": 151, "bob": 151, "carol": 1 + len(sent[group])}
        seen = {name: await take(clients[name], counts[name]) for name in names}
    for room, members in ((group, names), (direct, ["alice", "bob"])):
        logs = [[one for one in seen[name] if one.conversation_id == room] for name in members]
        check(logs, sent[room])


def check(logs: list[list[Message]], sent: list[str]) -> None:
    """Dense from 1, equal for all, and each sender's messages in the order sent."""
    first = logs[0]
    assert [one.seq for one in first] == list(range(1, len(first) + 1))
    texts = [[one.text for one in log if one.kind is Kind.MESSAGE] for log in logs]
    assert all(one == texts[0] for one in texts)
    assert sorted(texts[0]) == sorted(sent)
    for name in ("alice", "bob", "carol"):
        mine = [text for text in texts[0] if text.startswith(name)]
        assert mine == [text for text in sent if text.startswith(name)]
