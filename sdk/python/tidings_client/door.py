"""The way in: tokens, and the balancer's POST /v1/connect, which gives an edge and a ticket for it."""

import random
from collections.abc import Awaitable, Callable, Iterable

import aiohttp
from google.protobuf import json_format

from tidings.client.v1.http_pb2 import ConnectRequest, ConnectResponse, UnauthorizedResponse
from tidings.common.v1.error_pb2 import Error
from tidings_client.reconnect import Ended
from tidings_client.transport import ConnectionEnded, seconds_of

ANSWER_SECONDS = 10.0  # for the only balancer there is; it answers from memory
NEXT_SECONDS = 3.0  # for one of several, before another is asked

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


class Balancers:
    """Where to knock. One that doesn't answer, or fails, is passed over; the one that answered is asked first the next time.

    Args:
        urls: base URLs. Clients begin with any of them, so that all of them don't ask the same.
    """

    def __init__(self, urls: list[str]) -> None:
        self._urls = urls
        self._first = random.randrange(len(urls))  # noqa: S311  (no secret)

    async def knock(self, http: aiohttp.ClientSession, token: str, zone: str) -> ConnectResponse:
        """Ask for an edge.

        Raises:
            ConnectionEnded: none gave one; it says what an answer said, rather than that another could not be reached.
        """
        failures: list[ConnectionEnded] = []
        seconds = ANSWER_SECONDS if len(self._urls) == 1 else NEXT_SECONDS
        for index in range(self._first, self._first + len(self._urls)):
            place = index % len(self._urls)
            try:
                answer = await knock(http, self._urls[place], token, zone, seconds)
            except ConnectionEnded as error:
                failures.append(error)
                if error.ended.code and error.ended.code < 500:
                    break
            else:
                self._first = place
                return answer
        raise max(failures, key=lambda error: (0 < error.ended.code < 500, error.ended.code))


def balancer_urls(given: str | Iterable[str]) -> list[str]:
    """Base URLs, from a list of them or text with commas between.

    Raises:
        ValueError: there is none, or one is empty.
    """
    texts = [given] if isinstance(given, str) else list(given)
    urls = [one.strip().rstrip("/") for text in texts for one in text.split(",")]
    if not urls or not all(urls):
        raise ValueError("give the balancer's base URL, for example http://127.0.0.1:8080, or several with commas between")
    return urls


async def knock(http: aiohttp.ClientSession, url: str, token: str, zone: str, seconds: float) -> ConnectResponse:
    """Ask one balancer for an edge.

    Raises:
        ConnectionEnded: it gave none.
    """
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    body, timeout = to_json(ConnectRequest(zone=zone)), aiohttp.ClientTimeout(total=seconds)
    try:
        async with http.post(url + "/v1/connect", data=body, headers=headers, timeout=timeout) as response:
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
