"""The mesh's HTTP API, as the short commands use it: no session is opened, so nothing counts as delivered because of them.

Every call may be repeated safely (it carries a request_id or a client_msg_id, or changes nothing), so what fails for a passing
reason is tried again until the time is up.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar

import aiohttp
from google.protobuf import json_format
from google.protobuf.message import Message
from yarl import URL

from cli.failure import CommandError
from cli.place import Place
from cli.token import mint
from tidings.client.v1 import http_pb2
from tidings.common.v1 import error_pb2

M = TypeVar("M", bound=Message)

TOKEN_SECONDS = 600.0
RETRY_SECONDS = 0.3
REFUSED_SECONDS = 3.0  # a mesh that is being started again is there by then; one that isn't running won't come by waiting
PASSING = {
    error_pb2.ERROR_CODE_RATE_LIMITED,
    error_pb2.ERROR_CODE_OVERLOADED,
    error_pb2.ERROR_CODE_UNAVAILABLE,
    error_pb2.ERROR_CODE_INTERNAL,
}


class UnavailableError(CommandError):
    """Nobody answered, or nobody could do it now."""


class RefusedError(CommandError):
    """The mesh said no; `code` is one of tidings.common.v1.ErrorCode, 0 when it named none."""

    def __init__(self, what: str, hint: str, code: int) -> None:
        super().__init__(what, hint)
        self.code = code


class _PassingError(Exception):
    """Trying again may help, after `wait` seconds."""

    def __init__(self, what: CommandError, wait: float = RETRY_SECONDS) -> None:
        super().__init__(str(what))
        self.what = what
        self.wait = wait


class Api:
    """One user's calls. Open it with `open_api`."""

    def __init__(self, session: aiohttp.ClientSession, urls: list[str], edges: list[str], deadline: float) -> None:
        self._session = session
        self._urls = urls
        self._edges = edges
        self._deadline = deadline

    async def call(
        self, method: str, path: str, answer: type[M], body: Message | None = None, query: Mapping[str, str] | None = None
    ) -> M:
        """Ask an edge; try again while that may help and there is time.

        Raises:
            CommandError: refused, or not answered in time.
        """
        started = time.monotonic()
        while True:
            try:
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + max(0.1, self._deadline - time.monotonic())):
                    return await self._once(method, path, answer, body, query or {})
            except _PassingError as error:
                patience = (
                    started + REFUSED_SECONDS if isinstance(error.__cause__, aiohttp.ClientConnectorError) else self._deadline
                )
                if time.monotonic() + error.wait > min(patience, self._deadline):
                    raise error.what from error
                await asyncio.sleep(error.wait)
            except TimeoutError as error:
                raise UnavailableError(
                    f"{self._urls[0]} did not answer in time", "`tidings doctor` looks at every piece"
                ) from error

    async def _once(self, method: str, path: str, answer: type[M], body: Message | None, query: Mapping[str, str]) -> M:
        edge = self._edges[0] if self._edges else await self._connect()
        try:
            return await self._ask(method, edge + path, answer, body, query)
        except _PassingError:
            self._edges = self._edges[1:]  # perhaps another has more luck, or the balancer knows better
            raise

    async def _connect(self) -> str:
        url = self._urls[0]
        self._urls = [*self._urls[1:], url]  # should this one fail, the next is asked
        found = await self._ask("POST", f"{url}/v1/connect", http_pb2.ConnectResponse, http_pb2.ConnectRequest(), {})
        self._edges = [found.api_url]
        return found.api_url

    async def _ask(self, method: str, url: str, answer: type[M], body: Message | None, query: Mapping[str, str]) -> M:
        data = None if body is None else json_format.MessageToJson(body, preserving_proto_field_name=True)
        try:
            async with self._session.request(method, url, params=query, data=data) as response:
                text = await response.text()
        except (aiohttp.ClientError, OSError) as error:
            hint = "is the mesh running? `tidings up` starts one, `tidings doctor` looks at every piece"
            raise _PassingError(UnavailableError(f"nothing answers at {URL(url).origin()}", hint)) from error
        if response.status != 200:
            raise _refusal(response.status, text)
        return json_format.Parse(text, answer(), ignore_unknown_fields=True)


def _refusal(status: int, text: str) -> Exception:
    """What a refused request says; passing when it may be tried again."""
    try:
        error = json_format.Parse(text, error_pb2.Error(), ignore_unknown_fields=True)
    except json_format.ParseError:
        error = error_pb2.Error(message=f"HTTP {status}: {text.strip()[:200]}")
    said = error.message or f"HTTP {status}"
    if error.code in PASSING or status in (429, 502, 503):
        wait = error.retry_after.ToTimedelta().total_seconds() if error.HasField("retry_after") else RETRY_SECONDS
        return _PassingError(UnavailableError(said), wait)
    return RefusedError(said, _hint(status), error.code)


def _hint(status: int) -> str:
    return "the token isn't this mesh's: point --data at its folder, or give its --secret" if status == 401 else ""


@asynccontextmanager
async def open_api(place: Place, url: str | None, user: str, secret: str | None, timeout: float) -> AsyncIterator[Api]:
    """Calls in the name of `user`, all of them done within `timeout` seconds."""
    running, balancers = place.running(), place.urls(url)
    edges = list(running.edges) if running and running.alive and running.url == balancers[0] else []
    headers = {"Authorization": f"Bearer {mint(place, user, secret, TOKEN_SECONDS)}", "Content-Type": "application/json"}
    async with aiohttp.ClientSession(headers=headers) as session:
        yield Api(session, balancers, edges, time.monotonic() + timeout)
