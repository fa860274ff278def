"""What a message costs an edge: `python -m tests.edge.cost [--pairs 100] [--window 4] [--seconds 5] [--loop uvloop|asyncio]`.

The edge runs alone in a process of its own; this process is router and clients. Printed is the edge's CPU time per message, where a
message is a send, its `message_stored`, its delivery to one recipient and that recipient's acknowledgement.
"""

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import psutil
from pydantic import SecretStr

from edge.serve import serve
from edge.settings import EdgeSettings
from mesh import naming, rpc
from mesh.credentials import mint_token
from mesh.registry import MemoryRegistry
from mesh.telemetry import Telemetry, settle_memory
from tidings.client.v1 import frames_pb2
from tidings.common.v1.instance_pb2 import Instance
from tidings.router.v1 import link_pb2, link_pb2_grpc

SECRET = "a secret of at least thirty-two bytes"
TEXT = "x" * 120


class SwiftRouter(link_pb2_grpc.LinkServiceServicer):
    """Answers everything at once, storing nothing."""

    def __init__(self) -> None:
        self.ordinals: dict[str, int] = {}
        self.seqs: dict[str, int] = {}
        self.batches = 0
        self.envelopes = 0

    async def Link(self, requests: Any, context: Any) -> AsyncIterator[link_pb2.LinkResponse]:
        sequence = 0
        async for request in requests:
            sequence += 1
            response = link_pb2.LinkResponse(sequence=sequence, processed_sequence=request.sequence)
            if request.HasField("hello"):
                response.welcome.router_id = "swift"
            for envelope in request.batch.envelopes:
                self._answer(envelope, response.batch)
            if request.WhichOneof("body"):
                self.batches += 1
                self.envelopes += len(request.batch.envelopes)
                yield response

    def _answer(self, envelope: link_pb2.ClientEnvelope, batch: link_pb2.RouterBatch) -> None:
        reply = batch.replies.add(envelope_id=envelope.envelope_id, session=envelope.session)
        arm = envelope.WhichOneof("body")
        if arm == "open_session":
            reply.session_opened.user_ordinal = self.ordinals.setdefault(envelope.user_id, len(self.ordinals) + 1)
        elif arm == "sync_device":
            reply.sync_page.SetInParent()
        elif arm == "append_entry":
            append = envelope.append_entry
            seq = self.seqs[append.conversation_id] = self.seqs.get(append.conversation_id, 0) + 1
            frame = frames_pb2.ServerFrame()
            stored = frame.message_stored
            stored.client_msg_id, stored.conversation_id, stored.seq = append.client_msg_id, append.conversation_id, seq
            reply.frame = frame.SerializeToString()
            frame = frames_pb2.ServerFrame()
            entry = frame.new_message.entry
            entry.conversation_id, entry.seq = append.conversation_id, seq
            entry.content.CopyFrom(append.content)
            batch.deliveries.add(
                user_ordinals=[self.ordinals[append.recipient_id], envelope.user_ordinal],
                except_session=envelope.session,
                traffic_class=link_pb2.TRAFFIC_CLASS_CHAT,
                conversation_id=append.conversation_id,
                seq=seq,
                frame=frame.SerializeToString(),
            )


async def run_edge(router: str) -> None:
    """The child: an edge linked to one router, until its standard input ends."""
    registry, telemetry = MemoryRegistry(), Telemetry("edge")
    options: dict[str, Any] = {"port": 0, "token_secret": SecretStr(SECRET), "drain_seconds": 0}
    settings = EdgeSettings(frames_per_second=100_000, frames_burst=100_000, **options)
    known = Instance(service="router", instance_id="swift", grpc_address=router)
    async with registry.register(known), serve(settings, registry, telemetry) as instance:
        settle_memory()
        sys.stdout.write(instance.public_url + "\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


class Talker:
    """A client that keeps `window` sends to its partner under way, and acknowledges what it gets."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, user: str, partner: str) -> None:
        self.socket = socket
        self.sent = 0
        self.delivered = 0
        self._partner = partner
        self._chat = naming.direct_conversation_id(user, partner)

    async def open(self) -> None:
        hello = frames_pb2.ClientFrame(hello=frames_pb2.Hello(device_id="d"))
        await self.socket.send_bytes(hello.SerializeToString())
        while frames_pb2.ServerFrame.FromString((await self.socket.receive()).data).WhichOneof("body") != "caught_up":
            pass

    async def talk(self, window: int) -> None:
        for _ in range(window):
            await self._send()
        async for message in self.socket:
            frame = frames_pb2.ServerFrame.FromString(message.data)
            if frame.HasField("message_stored"):
                await self._send()
            elif frame.HasField("new_message"):
                self.delivered += 1
                acknowledge = frames_pb2.ClientFrame()
                acknowledge.acknowledge.positions.add(conversation_id=self._chat, seq=frame.new_message.entry.seq)
                await self.socket.send_bytes(acknowledge.SerializeToString())

    async def _send(self) -> None:
        self.sent += 1
        frame = frames_pb2.ClientFrame()
        frame.send_message.client_msg_id = f"m{self.sent}"
        frame.send_message.recipient_id = self._partner
        frame.send_message.content.text.text = TEXT
        await self.socket.send_bytes(frame.SerializeToString())


async def measure(pairs: int, window: int, seconds: float, loop: str) -> None:
    router, telemetry = SwiftRouter(), Telemetry("cost")
    servicers: dict[str, rpc.AddServicer] = {
        "tidings.router.v1.LinkService": lambda server: link_pb2_grpc.add_LinkServiceServicer_to_server(router, server)
    }
    async with rpc.serve("127.0.0.1:0", servicers, telemetry, reflect=False, drain_seconds=0) as port:
        command = [sys.executable, "-m", "tests.edge.cost", "--edge", f"127.0.0.1:{port}", "--loop", loop]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220
        assert child.stdin is not None and child.stdout is not None
        try:
            url = (await asyncio.to_thread(child.stdout.readline)).strip()
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
                await talk(http, url, psutil.Process(child.pid), router, pairs, window, seconds)
        finally:
            child.stdin.close()
            child.wait(10)


async def talk(
    http: aiohttp.ClientSession, url: str, edge: psutil.Process, router: SwiftRouter, pairs: int, window: int, seconds: float
) -> None:
    talkers = []
    for number in range(2 * pairs):
        user, partner = f"u{number}", f"u{number ^ 1}"
        bearer = {"Authorization": f"Bearer {mint_token(SECRET, user, time.time(), 3600)}"}
        socket = await http.ws_connect(f"{url}/v1/ws", headers=bearer, protocols=("tidings.v1.proto",), compress=0)
        talkers.append(Talker(socket, user, partner))
        await talkers[-1].open()
    tasks = [asyncio.create_task(talker.talk(window)) for talker in talkers]
    await asyncio.sleep(1)  # let it run warm
    before, cpu, started = delivered(talkers), edge.cpu_times(), time.perf_counter()
    batches, envelopes = router.batches, router.envelopes
    await asyncio.sleep(seconds)
    took, used, count = time.perf_counter() - started, edge.cpu_times(), delivered(talkers) - before
    for task in tasks:
        task.cancel()
    user, system = (used.user - cpu.user) / count * 1e6, (used.system - cpu.system) / count * 1e6
    sends = (router.envelopes - envelopes) / (router.batches - batches)
    sys.stdout.write(f"{count / took:,.0f} messages/s, {sends:.1f} sends a batch, {edge.memory_info().rss >> 20} MiB\n")
    sys.stdout.write(f"edge CPU per message: {user + system:.1f} us ({user:.1f} user, {system:.1f} system)\n")


def delivered(talkers: list[Talker]) -> int:
    return sum(talker.delivered for talker in talkers)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--window", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--loop", default="uvloop")
    parser.add_argument("--edge", help="run the child, linked to this router")
    arguments = parser.parse_args()
    if arguments.loop == "uvloop":
        import uvloop

        uvloop.install()
    if arguments.edge:
        asyncio.run(run_edge(arguments.edge))
    else:
        asyncio.run(measure(arguments.pairs, arguments.window, arguments.seconds, arguments.loop))


if __name__ == "__main__":
    main()
