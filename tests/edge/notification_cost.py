"""What notifications cost an edge: `python -m tests.edge.notification_cost [--sessions 10000] [--bytes 500] [--json] [--sockets]`.

Sessions, outboxes and packing are real; links and HTTP are not there, and without `--sockets` nothing is handed to the kernel.
Printed are the time of one broadcast to all, how long its longest turn kept the event loop from others, and the time of everybody's
acknowledgement up to the bytes for the router.
"""

import argparse
import asyncio
import socket
import sys
import time
from collections.abc import Callable

from pydantic import SecretStr
from pyroaring import BitMap

from edge.connection import Connection, Services
from edge.encoding import BinaryEncoding, Encoding, JsonEncoding, to_json
from edge.link_queue import LinkQueue
from edge.metrics import EdgeMetrics
from edge.rules import Rules
from edge.settings import EdgeSettings
from edge.switchboard import Switchboard
from edge.wire import pack
from mesh.credentials import Identity, TokenVerifier
from mesh.naming import new_notification_id
from mesh.telemetry import Telemetry
from tidings.client.v1.frames_pb2 import AcknowledgeNotification, ClientFrame, Hello, ServerFrame
from tidings.router.v1 import link_pb2


class MemoryConnection(Connection):
    """A client that takes everything at once."""

    __slots__ = ("_send",)

    def __init__(self, services: Services, identity: Identity, encoding: Encoding, send: Callable[[bytes], object]) -> None:
        super().__init__(services, identity, encoding, "127.0.0.1")
        self._send = send

    @property
    def drained(self) -> bool:
        return True

    def abort(self) -> None:
        """See Connection."""

    def _hand_on(self) -> None:
        self._send(pack(self._outbox.take(262_144), self.encoding.opcode))

    def _end(self, code: int) -> None:
        raise AssertionError(code)


class MemoryLink:
    """A link whose router is a queue."""

    router_id = "router"

    def __init__(self) -> None:
        self.queue = LinkQueue(500, 100_000)

    def wake(self) -> None:
        pass

    def acknowledge(self, notification_id: str, users: BitMap, stray: bool) -> int:
        return self.queue.acks.add(notification_id, users, stray)


class Bench:
    def __init__(self, json: bool) -> None:
        settings = EdgeSettings(port=0, token_secret=SecretStr("a secret of at least thirty-two bytes"), max_pending=1_000_000)
        metrics = EdgeMetrics(Telemetry("cost"))
        self.board = Switchboard(1_000_000, 1 << 40, metrics, time.monotonic, lambda: None, lambda: None)
        self.services = Services(
            Rules.of(settings, "edge"), self.board, TokenVerifier(settings), metrics, (1 << 20, 4096), time.monotonic
        )
        self.encoding: Encoding = self.board.json if json else BinaryEncoding()
        self.connections: list[MemoryConnection] = []
        self.far_ends: list[socket.socket] = []

    async def open(self, count: int, sockets: bool) -> None:
        for ordinal in range(1, count + 1):
            send = await self._socket() if sockets else len
            identity = Identity(f"user-{ordinal}", time.time() + 3600)
            connection = MemoryConnection(self.services, identity, self.encoding, send)
            connection.on_frame(ClientFrame(hello=Hello(device_id="d")))
            connection.session.on_opened(ordinal * 3)
            connection.session.on_sync_page(link_pb2.SyncPage(), time.monotonic())
            self.connections.append(connection)
        self.board.flush()

    async def _socket(self) -> Callable[[bytes], object]:
        here, there = socket.socketpair()
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=here)
        self.far_ends.append(there)
        return transport.write

    async def broadcast(self, frame: bytes, notification_id: str, link: MemoryLink) -> tuple[float, float, int]:
        """Seconds in all, of the longest turn, and the number of turns."""
        users = BitMap(range(4 * len(self.connections))).serialize()
        broadcast = link_pb2.Broadcast(user_ordinals=users, traffic_class=3, frame=frame, notification_id=notification_id)  # type: ignore[arg-type]
        batch = link_pb2.RouterBatch(broadcasts=[broadcast])
        began, longest, turns = time.perf_counter(), 0.0, 0
        self.board.on_batch(link, batch)  # type: ignore[arg-type]
        more = True
        while more:
            start = time.perf_counter()
            more = self.board.write_slice(time.monotonic(), time.time())
            await asyncio.sleep(0)
            longest, turns = max(longest, time.perf_counter() - start), turns + 1
        return time.perf_counter() - began, longest, turns

    def acknowledge(self, notification_id: str, link: MemoryLink) -> tuple[float, float, int]:
        """Seconds of all clients' frames, of the batch, and its bytes."""
        frame = ClientFrame(acknowledge_notification=AcknowledgeNotification(notification_ids=[notification_id]))
        message = to_json(frame) if isinstance(self.encoding, JsonEncoding) else frame.SerializeToString()
        began = time.perf_counter()
        for connection in self.connections:
            connection.on_message(message)
        said = time.perf_counter()
        link.queue.acks.release()
        request = link.queue.take()
        assert request is not None
        (told,) = request.batch.notification_acknowledgements
        assert len(BitMap.deserialize(told.user_ordinals)) == len(self.connections)
        return said - began, time.perf_counter() - said, request.ByteSize()


async def measure(sessions: int, size: int, json: bool, sockets: bool) -> None:
    bench, link = Bench(json), MemoryLink()
    await bench.open(sessions, sockets)
    bench.board.links["router"] = link  # type: ignore[assignment]
    for _ in range(3):
        frame = ServerFrame()
        frame.notification.notification_id = new_notification_id()
        frame.notification.content.text.text = "x" * size
        seconds, longest, turns = await bench.broadcast(frame.SerializeToString(), frame.notification.notification_id, link)
        sys.stdout.write(
            f"broadcast to {sessions}: {seconds * 1e3:.1f} ms, {seconds / sessions * 1e6:.2f} us a session, "
            f"longest of {turns} turns {longest * 1e3:.2f} ms\n"
        )
        said, told, weight = bench.acknowledge(frame.notification.notification_id, link)
        sys.stdout.write(
            f"{sessions} acknowledgements: {said * 1e3:.1f} ms, {said / sessions * 1e6:.2f} us each, "
            f"then one batch of {weight} bytes in {told * 1e6:.0f} us\n"
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--bytes", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--sockets", action="store_true")
    parser.add_argument("--loop", default="uvloop")
    arguments = parser.parse_args()
    if arguments.loop == "uvloop":
        import uvloop

        uvloop.install()
    asyncio.run(measure(arguments.sessions, arguments.bytes, arguments.json, arguments.sockets))


if __name__ == "__main__":
    main()
