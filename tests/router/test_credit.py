"""What edges may ask of a router, and what becomes of them and of chat when the way into the log is slow or frozen."""

import asyncio
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import TidingsError
from router import credit
from router.device_requests import DeviceRequests
from router.grpc_store import GrpcStore
from router.link import ANSWER_BYTES, EdgeLink
from router.meters import Meters
from router.outbox import Outbox
from tests.router.conftest import Mesh
from tests.router.fake_edge import edge, frame_of, send
from tidings.common.v1 import error_pb2
from tidings.router.v1 import link_pb2
from tidings.store.v1.message_log_pb2 import ListEntriesRequest


@given(st.integers(1, 100_000), st.integers(1, 500), st.floats(0, 3))
def test_shares_keep_to_the_budget_and_are_never_nothing(budget: int, links: int, fullness: float) -> None:
    one = credit.share(budget, links, fullness)
    assert one >= credit.LEAST
    assert one * links <= max(budget, credit.LEAST * links)
    assert one <= credit.share(budget, links, 0.0) == credit.share(budget, links, 0.5)
    assert credit.share(budget, links, 1.0) <= max(credit.LEAST, budget / links / 8)


async def test_links_share_the_budget_and_hear_when_their_share_changes(mesh: Mesh) -> None:
    router = await mesh.router(envelope_budget=4000)
    async with edge(router.grpc_address, edge_id="a") as first:
        assert first.credits == [4000], "with the welcome"
        async with edge(router.grpc_address, edge_id="b") as second:
            assert second.credits == [2000]
            await first.until(lambda: first.credits == [4000, 2000])
        await first.until(lambda: first.credits == [4000, 2000, 4000])


async def test_a_router_that_has_nothing_to_say_speaks_all_the_same(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.service._SPEAK_TURNS", 2)
    router = await mesh.router()
    async with edge(router.grpc_address) as one:
        heard = len(one.sequences)
        await one.until(lambda: len(one.sequences) >= heard + 3)


async def test_while_the_store_is_away_credit_shrinks_and_comes_back_with_it(mesh: Mesh) -> None:
    router = await mesh.router(append_queue=200, envelope_budget=200)
    alice = mesh.memory.user("alice").user_ordinal
    chat = mesh.memory.direct("alice", "bob")
    conversation_id = chat.conversation.conversation_id
    async with edge(router.grpc_address) as one:
        envelopes = [one.envelope("alice", alice, append_entry=send(conversation_id, f"m{n}")) for n in range(300)]
        await one.batch(envelopes=envelopes[:200])
        await one.until(lambda: one.credits[-1] == 25)
        await one.batch(envelopes=envelopes[200:])  # an edge that knows no credit: it is read no further, and hears us all the same
        heard = len(one.sequences)
        await one.until(lambda: len(one.sequences) > heard)
        await mesh.store()
        await one.reply(envelopes[-1])
        await one.until(lambda: one.credits[-1] == 200)
    assert [entry.client_msg_id for entry in chat.entries] == [f"m{n}" for n in range(300)]


async def test_a_frozen_store_is_left_for_another_and_what_it_does_when_it_wakes_up_changes_nothing(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.append_stream._PATIENCE_SECONDS", 0.3)
    router = await mesh.router()
    alice, bob = (mesh.memory.user(name).user_ordinal for name in ("alice", "bob"))
    chat = mesh.memory.direct("alice", "bob")
    conversation_id = chat.conversation.conversation_id
    frozen = await mesh.store()
    async with edge(router.grpc_address, bob) as one:
        await one.ask("alice", alice, append_entry=send(conversation_id, "m0"))
        await mesh.store()
        mesh.memory.frozen.add(frozen.instance_id)
        envelopes = [one.envelope("alice", alice, append_entry=send(conversation_id, f"m{n}")) for n in range(1, 40)]
        began = time.monotonic()
        for envelope in envelopes:
            await one.batch(envelopes=[envelope])
        for envelope in envelopes:
            assert frame_of((await one.reply(envelope)).frame).HasField("message_stored")
        assert time.monotonic() - began < 8.0, "one patience a message would be 12"
        assert mesh.memory.held
        mesh.memory.thaw()
        await one.ask("alice", alice, append_entry=send(conversation_id, "last"))
        await one.until(lambda: set(one.messages(bob, conversation_id)) == set(range(1, 42)))
    assert [entry.client_msg_id for entry in chat.entries] == [*(f"m{n}" for n in range(40)), "last"]


async def test_a_store_that_leaves_and_then_says_nothing_is_left_as_any_silent_one(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is frozen does: its lease in the registry runs out, and it answers no goodbye."""
    monkeypatch.setattr("router.append_stream._PATIENCE_SECONDS", 1.0)
    router = await mesh.router()
    alice = mesh.memory.user("alice").user_ordinal
    mesh.memory.direct("alice", "bob")
    frozen = await mesh.store()
    async with edge(router.grpc_address) as one:
        await one.ask("alice", alice, append_entry=send(recipient_id="bob", client_msg_id="m0"))
        await mesh.store()
        mesh.memory.frozen.add(frozen.instance_id)
        held = one.envelope("alice", alice, append_entry=send(recipient_id="bob", client_msg_id="m1"))
        await one.batch(envelopes=[held])
        await mesh.memory.until(lambda: mesh.memory.held == 1)
        frozen.draining = True
        async with mesh.registry.register(frozen), asyncio.timeout(4.0):
            assert frame_of((await one.reply(held)).frame).message_stored.seq == 2
        mesh.memory.thaw()


async def test_stores_that_are_all_silent_are_tried_more_and_more_seldom(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.append_stream._PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr("router.append_stream._WATCH_SECONDS", 0.02)
    for quick in (
        "mesh.breaker.FIRST_",
        "mesh.breaker.LONGEST_",
        "mesh.nodes._PROBE_",
        "mesh.patience._FIRST_",
        "mesh.patience._LONGEST_",
    ):
        monkeypatch.setattr(f"{quick}SECONDS", 0.01)
    router = await mesh.router()
    alice = mesh.memory.user("alice").user_ordinal
    mesh.memory.direct("alice", "bob")
    mesh.memory.frozen.update([(await mesh.store()).instance_id, (await mesh.store()).instance_id])
    async with edge(router.grpc_address) as one:
        late = one.envelope("alice", alice, append_entry=send(recipient_id="bob"))
        began = time.monotonic()
        await one.batch(envelopes=[late])
        await mesh.memory.until(lambda: mesh.memory.held >= 4)
        assert time.monotonic() - began > 0.1 + 0.2 + 0.4
        mesh.memory.thaw()
        assert frame_of((await one.reply(late)).frame).message_stored.seq == 1


async def test_an_edge_that_does_not_read_its_answers_is_refused_more_large_ones(mesh: Mesh) -> None:
    link = EdgeLink("edge", Outbox(10, 10), Meters(mesh.telemetry))
    nobody: Any = None  # nothing is to be asked
    devices = DeviceRequests(nobody, nobody, 10, 10, 10, 1.0)
    link.answer_to(1, 1, b"x" * (ANSWER_BYTES + 1))
    await devices._sync_all([(link, link_pb2.ClientEnvelope(envelope_id=2, sync_device=link_pb2.SyncDevice()))])
    taken = [link.outbox.take(0.0) for _ in range(2)]
    (reply,) = (reply for one in taken if one for reply in one[0].batch.replies if reply.envelope_id == 2)
    assert frame_of(reply.frame).error.code == error_pb2.ERROR_CODE_OVERLOADED


async def test_a_flood_of_reading_leaves_the_store_to_those_who_send(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.grpc_store._READS", 2)
    monkeypatch.setattr("router.grpc_store._READS_WAITING", 1)
    let_go = asyncio.Event()

    class Pool:
        calls = 0

        async def call(self, *_: Any) -> str:
            self.calls += 1
            await let_go.wait()
            return "page"

    pool = Pool()
    store = GrpcStore(pool)  # type: ignore[arg-type]
    reads = [asyncio.create_task(store.list_entries(ListEntriesRequest())) for _ in range(3)]
    await asyncio.sleep(0)
    assert (pool.calls, store.reads) == (2, 3)
    with pytest.raises(TidingsError, match="history has no room"):
        await store.list_entries(ListEntriesRequest())
    let_go.set()
    assert list(map(str, await asyncio.gather(*reads))) == ["page"] * 3
