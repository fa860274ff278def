"""Load reports, drains and sheds, slow readers, TLS: the edge as a member of a fleet, over real connections."""

import asyncio
import ipaddress
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.duration_pb2 import Duration

from mesh import rpc
from tests.edge.conftest import WAIT, Client, Edge, Start, token
from tidings.balancer.v1 import balancer_pb2, balancer_pb2_grpc
from tidings.client.v1 import frames_pb2 as f
from tidings.common.v1 import error_pb2 as e
from tidings.common.v1.instance_pb2 import Instance


class FakeBalancer(balancer_pb2_grpc.BalancerServiceServicer):
    """Attributes: rooms: users that have a place at another edge; None: questions are not answered."""

    def __init__(self, rooms: set[str] | None = frozenset()) -> None:  # type: ignore[assignment]
        self.rooms = rooms
        self.requests: list[balancer_pb2.ReportLoadRequest] = []
        self.commands: asyncio.Queue[balancer_pb2.ReportLoadResponse] = asyncio.Queue()
        self._changed = asyncio.Condition()

    async def ReportLoad(self, requests: Any, context: Any) -> AsyncIterator[balancer_pb2.ReportLoadResponse]:
        reader = asyncio.create_task(self._read(requests))
        try:
            while True:
                yield await self.commands.get()
        finally:
            reader.cancel()

    async def saw(self, found: Any) -> None:
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(lambda: found([one.load for one in self.requests])), WAIT)

    async def _read(self, requests: Any) -> None:
        async for request in requests:
            async with self._changed:
                self.requests.append(request)
                self._changed.notify_all()
            if request.HasField("place") and self.rooms is not None:
                self.commands.put_nowait(balancer_pb2.ReportLoadResponse(placements=self._place(request.place)))

    def _place(self, asked: balancer_pb2.PlaceConnections) -> balancer_pb2.Placements:
        rooms = self.rooms or set()
        return balancer_pb2.Placements(
            placements=[
                balancer_pb2.Placement(connection=one.connection, url="ws://other", ticket=f"for {one.user_id}")
                for one in asked.connections
                if one.user_id in rooms
            ]
        )

    @classmethod
    @asynccontextmanager
    async def beside(
        cls, edge: Edge, *rooms: str, answers: bool = True, instance_id: str = "balancer-1"
    ) -> AsyncIterator["FakeBalancer"]:
        balancer = cls(set(rooms) if answers else None)
        servicers: dict[str, rpc.AddServicer] = {
            "tidings.balancer.v1.BalancerService": lambda server: balancer_pb2_grpc.add_BalancerServiceServicer_to_server(
                balancer, server
            )
        }
        async with rpc.serve("127.0.0.1:0", servicers, edge.telemetry, reflect=False, drain_seconds=0) as port:
            instance = Instance(service="balancer", instance_id=instance_id, grpc_address=f"127.0.0.1:{port}")
            async with edge.registry.register(instance):
                await balancer.saw(bool)
                yield balancer


async def test_a_balancer_hears_who_is_here(start: Start) -> None:
    edge = await start()
    await edge.online("alice")
    async with FakeBalancer.beside(edge) as balancer:
        hello = balancer.requests[0].hello
        assert hello.instance.instance_id == edge.instance.instance_id
        assert [(one.user_id, one.ip) for one in hello.connections] == [("alice", "127.0.0.1")]
        ticket = edge.ticket("bob")
        async with edge.http.ws_connect(f"{edge.ws}/v1/ws?ticket={ticket}", protocols=("tidings.v1.proto",)) as socket:
            await Client(socket).open()
            await balancer.saw(lambda loads: any(load.arrived_ticket_ids for load in loads))
            await balancer.saw(lambda loads: [one.user_id for load in loads for one in load.opened] == ["bob"])
            await balancer.saw(lambda loads: loads[-1].connections == 2)
        await balancer.saw(lambda loads: [one.user_id for load in loads for one in load.closed] == ["bob"])


async def test_a_balancer_that_could_not_be_told_all_changes_is_told_everything_anew(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.load_tally.MAX_CHANGES", 0)
    edge = await start()
    async with FakeBalancer.beside(edge) as balancer:
        await edge.online("alice")
        await balancer.saw(
            lambda _: (
                len(hellos := [one.hello for one in balancer.requests if one.HasField("hello")]) > 1
                and [one.user_id for one in hellos[-1].connections] == ["alice"]
            )
        )


async def test_behind_a_proxy_the_balancer_hears_the_clients_own_address(start: Start) -> None:
    edge = await start(trust_forwarded_for=1)
    url, headers = f"{edge.ws}/v1/ws?ticket={edge.ticket('bob')}", {"X-Forwarded-For": "6.6.6.6, 192.0.2.7"}
    async with edge.http.ws_connect(url, protocols=("tidings.v1.proto",), headers=headers) as socket:
        await Client(socket).open()
        async with FakeBalancer.beside(edge) as balancer:
            assert [(one.user_id, one.ip) for one in balancer.requests[0].hello.connections] == [("bob", "192.0.2.7")]


async def test_drain_sends_everyone_away_and_takes_nobody(start: Start) -> None:
    edge = await start()
    clients = [await edge.online(f"u{number}") for number in range(4)]
    async with FakeBalancer.beside(edge) as balancer:
        drain = balancer_pb2.Drain(over=Duration(seconds=4))
        balancer.commands.put_nowait(balancer_pb2.ReportLoadResponse(drain=drain))
        told = [(await client.until("go_away")).go_away for client in clients]
        times = sorted(one.reconnect_after.ToNanoseconds() / 1e9 for one in told)
        assert [round(time - 0.5) for time in times] == [0, 1, 2, 3], "each has a slot of its own"
        assert not any(one.url for one in told), "the balancer gave them no place"
        await balancer.saw(lambda loads: loads[-1].draining)
        try:
            await edge.connect("late")
        except aiohttp.WSServerHandshakeError as error:
            assert error.status == 503
        await clients[0].say(request_id=1, heartbeat=f.Heartbeat())
        assert (await clients[0].until("heartbeat")).request_id == 1


async def test_who_has_a_place_is_told_it_with_a_ticket_and_the_others_a_time(start: Start) -> None:
    edge = await start()
    alice, bob = await edge.online("alice"), await edge.online("bob")
    async with FakeBalancer.beside(edge, "alice") as balancer:
        balancer.commands.put_nowait(balancer_pb2.ReportLoadResponse(drain=balancer_pb2.Drain(over=Duration(seconds=2))))
        placed, alone = (await alice.until("go_away")).go_away, (await bob.until("go_away")).go_away
        assert (placed.url, placed.ticket) == ("ws://other", "for alice")
        assert (alone.url, alone.ticket) == ("", "")
        assert alone.HasField("reconnect_after")
        number = next(place for place, one in enumerate(balancer.requests) if one.HasField("place"))
        assert balancer.requests[number - 1].load.draining, "the balancer knows that all are to leave before it is asked"
        asked = balancer.requests[number].place.connections
        assert {(one.user_id, one.ip) for one in asked} == {("alice", "127.0.0.1"), ("bob", "127.0.0.1")}
        assert all(0 <= one.leaves_in_ms <= 2000 for one in asked)
        assert all(3590 < one.session_expires - time.time() <= 3600 for one in asked)
    await edge.counted("departures_total", placed="yes")
    await edge.counted("departures_total", placed="no")


async def test_a_balancer_that_does_not_answer_holds_nobody_back_for_long(start: Start) -> None:
    edge = await start()
    alice = await edge.online("alice")
    async with FakeBalancer.beside(edge, answers=False) as silent, FakeBalancer.beside(edge, "alice", instance_id="b2") as other:
        for balancer in (silent, other):
            balancer.commands.put_nowait(balancer_pb2.ReportLoadResponse(drain=balancer_pb2.Drain(over=Duration(nanos=10**8))))
            told = (await alice.until("go_away")).go_away
            assert told.url == ("ws://other" if balancer is other else ""), "who was silent is passed over"


async def test_shed_sends_some_away(start: Start) -> None:
    edge = await start()
    clients = [await edge.online(f"u{number}") for number in range(4)]
    async with FakeBalancer.beside(edge) as balancer:
        balancer.commands.put_nowait(
            balancer_pb2.ReportLoadResponse(shed=balancer_pb2.Shed(connections=2, over=Duration(seconds=2)))
        )
        hearing = [asyncio.create_task(client.until("go_away")) for client in clients]
        done: set[asyncio.Task[f.ServerFrame]] = set()
        while len(done) < 2:
            done, _ = await asyncio.wait(hearing, timeout=WAIT, return_when=asyncio.FIRST_COMPLETED)
        for task in hearing:
            task.cancel()
        assert len(done) == 2


async def test_a_stopping_edge_waits_for_its_clients_to_leave(start: Start) -> None:
    edge = await start(drain_seconds=8.0)
    clients = [await edge.online("alice"), await edge.online("bob")]

    async def leave(client: Client) -> float:
        after = (await client.until("go_away")).go_away.reconnect_after.ToNanoseconds() / 1e9
        await client.socket.close()
        return after

    leaving = [asyncio.create_task(leave(client)) for client in clients]
    await asyncio.wait_for(edge.stop(), 5.0)  # sooner than drain_seconds, for all have left
    assert all([await task < 8.0 for task in leaving])


async def test_who_does_not_leave_is_closed(start: Start) -> None:
    edge = await start(drain_seconds=0.2)
    alice = await edge.online("alice")
    closing = asyncio.create_task(alice.closed())
    await edge.stop()
    assert await closing == e.ERROR_CODE_GOING_AWAY


async def test_a_client_that_does_not_read_is_closed_and_costs_its_outbox_at_most(start: Start) -> None:
    edge = await start(outbox_bytes=65_536, heartbeat_limit_seconds=100)
    slow, other = await edge.online("slow"), await edge.online("other")
    transport = slow.socket._response.connection.transport
    assert transport is not None
    transport.pause_reading()
    presence = f.ServerFrame(typing_indicator=f.TypingIndicator(user_id="x" * 1000))
    big = f.ServerFrame(message_page=f.MessagePage(conversation_id="x" * 60_000))
    for _ in range(300):
        edge.router.deliver(["slow"], presence, traffic_class=4)
        edge.router.deliver(["slow"], big, traffic_class=1)
        edge.router.deliver(["other"], presence, traffic_class=1)
    for _ in range(300):
        await other.until("typing_indicator")
    await edge.counted("client_errors_total", reason="SLOW_CONSUMER")
    await edge.counted("outbox_dropped_frames_total", traffic_class="presence")
    transport.resume_reading()
    assert await slow.closed() in (e.ERROR_CODE_SLOW_CONSUMER, aiohttp.WSCloseCode.ABNORMAL_CLOSURE)
    await edge.online("slow")  # and may come back


async def test_wss(start: Start, tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    async with AsyncExitStack() as stack:
        trust = ssl.create_default_context(cafile=str(certificate))
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)))
        edge = await start(tls_certificate=str(certificate), tls_key=str(key), wait_ready=http)
        assert edge.ws.startswith("wss://")
        headers = {"Authorization": f"Bearer {token('alice')}"}
        async with http.ws_connect(edge.ws + "/v1/ws", headers=headers, protocols=("tidings.v1.proto",)) as socket:
            await Client(socket).open()


def self_signed(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "certificate.pem"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret = folder / "key.pem"
    plain = serialization.NoEncryption()
    secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return pem, secret
