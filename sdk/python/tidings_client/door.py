"""The way in: tokens, and the balancer's POST /v1/connect, which gives an edge and a ticket for it."""

from collections.abc import Awaitable, Callable

import aiohttp
from google.protobuf import json_format

from tidings.client.v1.http_pb2 import ConnectRequest, ConnectResponse, UnauthorizedResponse
from tidings.common.v1.error_pb2 import Error
from tidings_client.reconnect import Ended
from tidings_client.transport import ConnectionEnded, seconds_of

CONNECT_TIMEOUT = aiohttp.ClientTimeout(total=10)  # the balancer answers from memory

TokenSource = str | Callable[[], Awaitable[str]]


class Tokens:
    """The bearer token, and where a new one comes from.

    Args:
        source: the token, or a function that gives one, called when there is none yet or it was refused or runs out.
    """

    def __init__(self, source: TokenSource) -> None:
        self._source = source
        self._token = source if isinstance(source, str) else ""

    @property
    def renewable(self) -> bool:
        """Whether another token can be had."""
        return not isinstance(self._source, str)

    async def get(self) -> str:
        """The token now. Whatever the application's function raises passes through."""
        return self._token or await self.renew()

    async def renew(self) -> str:
        """A new token, when the application can give one."""
        if not isinstance(self._source, str):
            self._token = await self._source()
        return self._token


async def knock(http: aiohttp.ClientSession, url: str, token: str, zone: str) -> ConnectResponse:
    """Ask the balancer for an edge.

    Raises:
        ConnectionEnded: it gave none.
    """
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    body = to_json(ConnectRequest(zone=zone))
    try:
        async with http.post(url + "/v1/connect", data=body, headers=headers, timeout=CONNECT_TIMEOUT) as response:
            text = await response.text()
            if response.status != 200:
                retry_after = seconds_of(response.headers.get("Retry-After"))
                raise ConnectionEnded(Ended("connect", response.status, _explain(response.status, text), retry_after))
            return json_format.Parse(text, ConnectResponse(), ignore_unknown_fields=True)
    except (aiohttp.ClientError, OSError, TimeoutError, UnicodeDecodeError) as error:
        raise ConnectionEnded(Ended("connect", 0, f"{url} can't be reached: {error or type(error).__name__}")) from error
    except json_format.ParseError as error:
        raise ConnectionEnded(Ended("connect", 0, f"{url} answered what a balancer doesn't: {error}")) from error


def to_json(message: ConnectRequest) -> str:
    """A body in protobuf's JSON mapping with proto field names."""
    return json_format.MessageToJson(message, preserving_proto_field_name=True, indent=None)


def _explain(status: int, text: str) -> str:
    try:
        if status == 401:
            refusal = json_format.Parse(text, UnauthorizedResponse(), ignore_unknown_fields=True)
            login = f"; get a token at {refusal.login_url}" if refusal.login_url else ""
            return refusal.message + login
        return json_format.Parse(text, Error(), ignore_unknown_fields=True).message
    except json_format.ParseError:
        return text[:200]
