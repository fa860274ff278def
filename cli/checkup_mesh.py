"""The pieces of a running mesh that `tidings doctor` looks at from outside: by HTTP, and with two clients that write to each
other.
"""

import asyncio
import os
import time
from email.utils import parsedate_to_datetime

import aiohttp

from cli.checkup import IllError, Patient
from cli.token import mint
from tidings_client import Client, Message, TidingsClientError

ROUND_TRIP_SECONDS = 8.0
MOST_SKEW_SECONDS = 5.0  # the leeway of tokens and tickets, see mesh.credentials; an HTTP date adds up to one
TOKEN_SECONDS = 300.0
DEVICES = 8  # so that doctors at work at the same time seldom replace each other, and few devices are remembered
USERS = ("tidings-doctor-1", "tidings-doctor-2")


async def balancer(patient: Patient) -> str:
    """Whether a mesh is running."""
    try:
        async with patient.session.get(f"{patient.url}/readyz") as response:
            said = (await response.text()).strip()
    except (aiohttp.ClientError, OSError, TimeoutError):
        raise IllError(f"nothing answers at {patient.url}: no mesh is running there", _how_to_start(patient)) from None
    if response.status != 200:
        raise IllError(
            f"{patient.url} answers, but is not ready: {said}", "is an edge running? the logs of `tidings up` say why not"
        )
    return f"ready at {patient.url}"


def _how_to_start(patient: Patient) -> str:
    running = patient.place.running()
    if running and running.alive and running.url == patient.url:
        return f"process {running.pid} runs but doesn't answer: stop it (kill {running.pid}), then `tidings up` again"
    return "start one with `tidings up`, or say where it is with --url"


async def clock(patient: Patient) -> str:
    """Whether this machine and the mesh agree on the time."""
    async with patient.session.get(f"{patient.url}/healthz") as response:
        theirs = parsedate_to_datetime(response.headers["Date"]).timestamp()
    skew = time.time() - theirs - 0.5  # the header has whole seconds, rounded down
    if abs(skew) > MOST_SKEW_SECONDS:
        ahead = "ahead of" if skew > 0 else "behind"
        raise IllError(
            f"this machine's clock is {abs(skew):.0f} s {ahead} the mesh's", "set both by NTP: tokens are refused otherwise"
        )
    return "agrees within the second" if abs(skew) < 1 else f"off by {skew:+.0f} s, which is allowed"


async def edge(patient: Patient) -> str:
    """Whether the balancer lets us in, and the edge it names is there."""
    headers = {"Authorization": f"Bearer {mint(patient.place, USERS[0], patient.secret, TOKEN_SECONDS)}"}
    async with patient.session.post(f"{patient.url}/v1/connect", json={}, headers=headers) as response:
        answer = await response.json(content_type=None)
    if response.status == 401:
        hint = "point --data at the mesh's own folder, or give its --secret"
        raise IllError(f"the balancer refused our token: {answer.get('message', '')}", hint)
    if response.status != 200:
        raise IllError(f"the balancer gave no edge: {answer.get('message', response.status)}", "try again; is an edge running?")
    patient.api_url = answer["api_url"]
    return await _edge_ready(patient)


async def _edge_ready(patient: Patient) -> str:
    try:
        async with patient.session.get(f"{patient.api_url}/readyz") as response:
            said = (await response.text()).strip()
    except (aiohttp.ClientError, OSError, TimeoutError):
        hint = "is it running, and can this machine reach its address? an edge behind a proxy needs its advertised address set"
        raise IllError(f"the edge {patient.api_url} does not answer", hint) from None
    if response.status != 200:
        raise IllError(f"the edge {patient.api_url} is not ready: {said}", "its logs say why; is a router running?")
    return f"ready at {patient.api_url}"


async def router(patient: Patient) -> str:
    """Whether sessions open, which takes a router."""
    started = time.perf_counter()
    try:
        for user in USERS:
            token = mint(patient.place, user, patient.secret, TOKEN_SECONDS)
            client = Client(patient.url, token, device_id=f"doctor-{os.getpid() % DEVICES}", user_id=user)
            patient.clients.append(await patient.stack.enter_async_context(client))
        for client in patient.clients:
            await client.caught_up(timeout=ROUND_TRIP_SECONDS)
    except (TidingsClientError, TimeoutError) as error:
        hint = "is a router running? the logs of router and edge say why not"
        raise IllError(f"no session came up within {ROUND_TRIP_SECONDS:.0f} s ({error})", hint) from error
    return f"two sessions opened in {_milliseconds(started)}"


async def store(patient: Patient) -> str:
    """Whether a message is stored and arrives."""
    sender, receiver = patient.clients
    started = time.perf_counter()
    stored = ""
    try:
        async with asyncio.timeout(ROUND_TRIP_SECONDS):
            message = await sender.send(USERS[1], f"doctor {time.time_ns()}").stored()
            stored = _milliseconds(started)
            await _arrival(receiver, message)
    except (TidingsClientError, TimeoutError) as error:
        what = f"a message was stored in {stored} but did not arrive" if stored else f"a message was not stored ({error})"
        hint = "the logs of router and store say why; has the database room, and does it answer?"
        raise IllError(f"{what} within {ROUND_TRIP_SECONDS:.0f} s", hint) from error
    return f"a message was stored in {stored} and arrived after {_milliseconds(started)}"


async def _arrival(receiver: Client, message: Message) -> None:
    async for one in receiver.messages():
        if one.message_id == message.message_id:
            return


def _milliseconds(started: float) -> str:
    return f"{(time.perf_counter() - started) * 1000:.0f} ms"
