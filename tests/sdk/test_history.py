"""History: the same pages whether they are kept here, lie at the server, or a bit of both."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sdk.conftest import take
from tests.sdk.fake_server import FakeServer, running
from tidings_client import Client, RequestFailed, direct_conversation_id


@given(seed=st.integers(0, 2**32))
@settings(max_examples=15, deadline=None)
async def test_any_page_from_anywhere_is_what_the_log_has(seed: int) -> None:
    chance = random.Random(seed)
    async with running() as server:
        room = server.log.direct("alice", "bob")
        total = chance.randint(1, 400)
        for number in range(1, total + 1):
            server.say("alice", room, str(number))
        server.log.retain_from(room, chance.randint(1, total))
        first = room.conversation.retained_from_seq
        async with Client(server.url, "bob", history_limit=chance.choice([1, 50, 150])) as bob:
            await bob.caught_up()
            for _ in range(8):
                await compare(bob, chance, list(range(first, total + 1)))


async def compare(bob: Client, chance: random.Random, seqs: list[int]) -> None:
    before = chance.choice([None, chance.randint(1, seqs[-1] + 5)])
    after = chance.choice([None, chance.randint(0, seqs[-1] + 5)])
    limit = chance.choice([1, 7, 100, 250])
    inside = [seq for seq in seqs if (before is None or seq < before) and (after is None or seq > after)]
    upwards = after is not None and before is None
    expected = inside[:limit] if upwards else inside[-limit:]
    page = await bob.history("alice", before=before, after=after, limit=limit)
    assert [message.seq for message in page] == expected
    assert all(message.text == str(message.seq) for message in page)


async def test_what_was_read_once_is_there_offline(server: FakeServer, tmp_path: Path) -> None:
    state = tmp_path / "bob.sqlite"
    room = server.log.direct("alice", "bob")
    for number in range(1, 301):
        server.say("alice", room, str(number))
    async with Client(server.url, "bob", state=state, history_limit=5) as bob:
        await bob.caught_up()
        assert len(await bob.history("alice", limit=12)) == 12
    offline = Client("http://127.0.0.1:1", "nobody", state=state)
    assert [message.seq for message in await offline.history("alice", limit=1000)] == list(range(196, 301))
    assert [message.seq for message in await offline.history("alice", after=220, limit=2)] == [221, 222]
    await offline.close()


async def test_history_fetched_early_does_not_hide_messages(server: FakeServer) -> None:
    room = server.log.direct("alice", "bob")
    for number in range(1, 4):
        server.say("alice", room, str(number))
    async with Client(server.url, "bob") as bob:
        await bob.caught_up()
        assert len(await bob.history("alice")) == 3
        assert [message.seq for message in await take(bob, 3)] == [1, 2, 3]


async def test_a_chat_not_begun_is_empty_and_a_strangers_group_is_refused(server: FakeServer) -> None:
    async with Client(server.url, "bob") as bob:
        await bob.caught_up()
        assert await bob.history("nobody-yet") == []
        assert bob.conversation_id("alice") == direct_conversation_id("alice", "bob")
        group = server.log.group("others", "alice", ["carol"])
        assert await bob.history(group.conversation.conversation_id) == []
        with pytest.raises(RequestFailed, match="INVALID_CHAT_ID"):
            await bob.conversation(group.conversation.conversation_id)
