"""The HTTP server's socket: deadlines for TLS and headers, which aiohttp's own sites don't give."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

BACKLOG = 4096  # connections that may wait for accept when everybody comes back at once
MAX_HEADER_BYTES = 16_384  # one header line; a token is about 1 KiB


@dataclass(frozen=True, slots=True)
class Listener:
    """Where to listen.

    Attributes:
        host, port: port 0 picks a free one.
        tls: None serves without.
        header_seconds: from accept (or the last answer) to the end of a request's headers; then the connection is closed.
    """

    host: str
    port: int
    tls: ssl.SSLContext | None
    header_seconds: float

    @asynccontextmanager
    async def serve(self, app: web.Application) -> AsyncIterator[int]:
        """Serve until the context ends; gives the port."""
        # An idle connection is one that has not finished the headers of its next request, so this is their deadline.
        runner = web.AppRunner(
            app,
            access_log=None,
            keepalive_timeout=self.header_seconds,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            shutdown_timeout=1.0,
        )
        await runner.setup()
        try:
            server = await self._listen(runner)
            try:
                yield server.sockets[0].getsockname()[1]
            finally:
                server.close()
        finally:
            await runner.cleanup()

    async def _listen(self, runner: web.AppRunner) -> asyncio.Server:
        if runner.server is None:
            raise RuntimeError("the runner was not set up")
        deadline = None if self.tls is None else self.header_seconds
        return await asyncio.get_running_loop().create_server(
            runner.server,
            self.host,
            self.port,
            ssl=self.tls,
            ssl_handshake_timeout=deadline,
            backlog=BACKLOG,
        )


def tls_context(certificate: str, key: str) -> ssl.SSLContext | None:
    """The context of a certificate chain and its key, both PEM files; None without a certificate.

    Raises:
        OSError, ssl.SSLError: they can't be read, or don't belong together.
    """
    if not certificate:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key or None)
    return context
