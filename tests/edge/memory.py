"""What an idle session costs an edge: `python -m tests.edge.memory [--sessions 5000] [--tls] [--objects] [--only edge|bare]`.

The edge runs alone in a process of its own, and after it a bare aiohttp WebSocket server with as many connections of the same
clients; this process is router and clients. Printed are bytes a session by part: what the process holds resident, of that what
Python's own allocator mapped, what C code got from malloc, and what malloc keeps free; with --objects also, slower and larger for
it, what Python allocated by the line that asked for it, and the live objects by type. What the kernel keeps for the sockets is no
process's memory, and stands apart.
"""

import argparse
import asyncio
import base64
import os
import ssl
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

from bench.wire import SUBPROTOCOL, WireConnection, client_frame
from mesh import rpc
from mesh.credentials import mint_token
from mesh.telemetry import Telemetry
from tests.certificates import make_certificates
from tests.edge.cost import SECRET, SwiftRouter
from tests.edge.idle_servers import Child, child, say
from tidings.client.v1 import frames_pb2
from tidings.router.v1 import link_pb2_grpc

AT_ONCE = 50  # handshakes under way
SETTLE_SECONDS = 8.0  # until timers of the handshakes and rounds of the session directory are over
WARM = 200  # connections before the first reading, so that pools and tables made once don't count
HELLO = client_frame(frames_pb2.ClientFrame(hello=frames_pb2.Hello(device_id="phone")).SerializeToString())
PARTS = ("resident", "python", "malloc", "free")


async def connect(url: str, user: str, tls: ssl.SSLContext | None, *, greet: bool) -> WireConnection:
    """Open a connection; with `greet` say Hello and wait until caught up."""
    caught_up = asyncio.Event()

    def on_frame(payload: bytes) -> None:
        if frames_pb2.ServerFrame.FromString(payload).HasField("caught_up"):
            caught_up.set()

    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    request = handshake(parts.netloc, mint_token(SECRET, user, time.time(), 3600))
    loop, host, port = asyncio.get_running_loop(), parts.hostname, parts.port
    _, connection = await loop.create_connection(lambda: WireConnection(request, on_frame, lambda code: None), host, port, ssl=tls)
    await connection.opened
    if greet:
        connection.send(HELLO)
        await caught_up.wait()
    return connection


def handshake(host: str, token: str) -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET /v1/ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\nAuthorization: Bearer {token}\r\n\r\n"
    ).encode()


async def fill(server: Child, users: range, tls: ssl.SSLContext | None, *, greet: bool) -> list[WireConnection]:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> WireConnection:
        async with gate:
            return await connect(server.url, f"user-{number:08}", tls, greet=greet)

    connections = await asyncio.gather(*(one(number) for number in users))
    await asyncio.sleep(SETTLE_SECONDS)
    return connections


async def grow(server: Child, sessions: int, tls: ssl.SSLContext | None, *, greet: bool) -> None:
    """Connect, read, connect many more, read again, and print what each of those took."""
    warm = await fill(server, range(WARM), tls, greet=greet)
    before, kernel = server.read(), kernel_bytes()
    many = await fill(server, range(WARM, WARM + sessions), tls, greet=greet)
    after, kernel = server.read(), kernel_bytes() - kernel
    show({part: (after[part] - before[part]) / sessions for part in PARTS})
    say(f"  {kernel / sessions:8.0f}  kernel, for both ends' buffers (not the process's)")
    show(difference(before["packages"], after["packages"], sessions), 40)
    counts = {name: count for name, (count, _) in after["types"].items()}
    earlier = {name: count for name, (count, _) in before["types"].items()}
    sizes = difference(flat(before["types"]), flat(after["types"]), sessions)
    show({f"{name} x {(counts[name] - earlier.get(name, 0)) / sessions:.2f}": size for name, size in sizes.items()}, 40)
    for connection in warm + many:
        connection.abort()


def flat(types: dict[str, tuple[int, int]]) -> dict[str, int]:
    return {name: size for name, (_, size) in types.items()}


def difference(before: dict[str, int], after: dict[str, int], sessions: int) -> dict[str, float]:
    return {name: (size - before.get(name, 0)) / sessions for name, size in after.items()}


def show(parts: dict[str, float], most: int = 10) -> None:
    """The largest parts; those under four bytes a session are noise."""
    for name, size in sorted(parts.items(), key=lambda part: -part[1])[:most]:
        if size >= 4:
            say(f"  {size:8.0f}  {name}")
    say()


def kernel_bytes() -> int:
    """Of all TCP sockets of the machine."""
    tcp = Path("/proc/net/sockstat").read_text().split("TCP:", 1)[1].split("\n")[0].split()
    return int(tcp[tcp.index("mem") + 1]) * os.sysconf("SC_PAGESIZE")


@asynccontextmanager
async def router() -> AsyncIterator[str]:
    servicer = SwiftRouter()
    servicers: dict[str, rpc.AddServicer] = {
        "tidings.router.v1.LinkService": lambda server: link_pb2_grpc.add_LinkServiceServicer_to_server(servicer, server)
    }
    async with rpc.serve("127.0.0.1:0", servicers, Telemetry("memory"), reflect=False, drain_seconds=0) as port:
        yield f"127.0.0.1:{port}"


async def measure(sessions: int, only: str, *, secure: bool, objects: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        certificates = str(make_certificates(Path(folder) / "c", ["edge"])) if secure else ""
        tls = ssl._create_unverified_context() if secure else None
        async with router() as address:
            for name in ("edge", "bare"):
                if only in ("", name):
                    say(f"{name}: bytes a session, {sessions} sessions, {'TLS' if secure else 'plain'}")
                    with child(name, address, certificates, trace=objects) as server:
                        await grow(server, sessions, tls, greet=name == "edge")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sessions", type=int, default=5000)
    parser.add_argument("--only", default="")
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--objects", action="store_true")
    arguments = parser.parse_args()
    uvloop.install()
    asyncio.run(measure(arguments.sessions, arguments.only, secure=arguments.tls, objects=arguments.objects))


if __name__ == "__main__":
    main()
