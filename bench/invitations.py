"""Asking the balancer for a place, as often as it takes."""

import asyncio
from typing import NamedTuple

import aiohttp
from google.protobuf import json_format

from tidings.client.v1 import http_pb2

_ATTEMPTS = 30


class Invitation(NamedTuple):
    """Where a user connects: from the balancer's answer."""

    url: str
    api_url: str


async def invite(session: aiohttp.ClientSession, url: str, token: str) -> Invitation:
    """Ask the balancer at `url`.

    Raises:
        ConnectionError: it has no place, or refuses.
    """
    headers = {"Authorization": f"Bearer {token}"}
    for _ in range(_ATTEMPTS):
        async with session.post(f"{url}/v1/connect", json={}, headers=headers) as response:
            text = await response.text()
            if response.status == 200:
                answer = json_format.Parse(text, http_pb2.ConnectResponse(), ignore_unknown_fields=True)
                return Invitation(f"{answer.url}?ticket={answer.ticket}", answer.api_url)
            if response.status not in (429, 503):
                raise ConnectionError(f"the balancer answered {response.status}: {text}")
            await asyncio.sleep(float(response.headers.get("Retry-After", "1")))
    raise ConnectionError("the balancer had no room for a user, however often asked")
