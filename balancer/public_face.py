"""POST /v1/connect: HTTP in, one call of the door, HTTP out.

The order of checks is the order of cost: origin, rate, token, body, room. A refusal is JSON: UnauthorizedResponse with 401,
tidings.common.v1.Error with every other status.
"""

import asyncio
import json
import math
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web
from google.protobuf import json_format
from google.protobuf.message import Message

from balancer.door import Admission, Door
from balancer.rate_limit import ConnectRate
from balancer.settings import BalancerSettings
from mesh import errors
from mesh.addresses import caller, network
from mesh.credentials import TokenVerifier
from mesh.telemetry import Telemetry
from tidings.client.v1.http_pb2 import ConnectRequest, ConnectResponse, UnauthorizedResponse
from tidings.common.v1 import error_pb2

MAX_BODY_BYTES = 4096  # a ConnectRequest is a zone's name
BODY_SECONDS = 5.0  # for those bytes to arrive
MAX_ZONE_CHARACTERS = 128
PREFLIGHT_SECONDS = 600  # how long a browser may remember that it may ask

_NOTHING = (b"", b"{}")
_JSON = {"Content-Type": "application/json; charset=utf-8", "Cache-Control": "no-store"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class PublicFace:
    """What clients see of a balancer."""

    def __init__(
        self, door: Door, verifier: TokenVerifier, limit: ConnectRate | None, settings: BalancerSettings, telemetry: Telemetry
    ) -> None:
        self._door = door
        self._verifier = verifier
        self._limit = limit
        self._settings = settings
        self._always = _always(settings)
        self._requests = telemetry.counter("connect_requests", "POST /v1/connect, by outcome")

    def application(self) -> web.Application:
        """The aiohttp application, still without the admin routes."""
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._guard])
        app.add_routes([web.post("/v1/connect", self._connect), web.options("/v1/connect", self._preflight)])
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse unknown origins, answer every error by name, and let allowed pages read the answer."""
        try:
            self._check_origin(request)
            response = await handler(request)
        except errors.TidingsError as error:
            response = self._refusal(request, error)
        response.headers.update(self._cors(request))
        return response

    async def _connect(self, request: web.Request) -> web.Response:
        outcome = "INTERNAL"
        try:
            response = await self._answer(request)
            outcome = "OK"
        except errors.TidingsError as error:
            outcome = error.reason
            raise
        finally:
            self._requests.add(1, {"outcome": outcome})
        return response

    async def _answer(self, request: web.Request) -> web.Response:
        now, ip = time.monotonic(), self._ip(request)
        wait = 0.0 if self._limit is None else await self._limit.take(network(ip), now)
        if wait > 0:
            raise errors.rate_limited(wait)
        identity = await self._verifier.verify(_bearer(request), time.time())
        asked = await _body(request)
        admission = self._door.admit(identity, ip, asked.zone, time.monotonic(), time.time())
        return _written(json.dumps(self._fields(admission)), 200)

    async def _preflight(self, _: web.Request) -> web.Response:
        """What a browser asks before it lets a page send a token; the answer is in the headers."""
        return web.Response(status=204)

    def _ip(self, request: web.Request) -> str:
        return caller(request, self._settings.trust_forwarded_for)

    def _fields(self, admission: Admission) -> dict[str, Any]:
        """A ConnectResponse in protobuf's JSON mapping, by hand: that mapping takes longer than all else that is done here."""
        fields: dict[str, Any] = {
            "url": admission.url + "/v1/ws",
            "ticket": admission.ticket.text,
            "expire_time": datetime.fromtimestamp(admission.ticket.expires, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "api_url": "http" + admission.url.removeprefix("ws"),  # and so wss becomes https
        }
        if admission.alternatives:
            fields["alternatives"] = [url + "/v1/ws" for url in admission.alternatives]
        return fields | self._always

    def _refusal(self, request: web.Request, error: errors.TidingsError) -> web.Response:
        if error.code == error_pb2.ERROR_CODE_UNAUTHENTICATED:
            return self._unauthorized(request, error)
        response = _json(error.to_frame(), error.http_status)
        if error.retry_after is not None:
            response.headers["Retry-After"] = str(math.ceil(error.retry_after))
        return response

    def _unauthorized(self, request: web.Request, error: errors.TidingsError) -> web.Response:
        body = UnauthorizedResponse(reason=error.reason, message=error.message, login_url=self._settings.login_url)
        response = _json(body, 401)
        # RFC 6750, section 3.1: who sent no credentials is not told an error code.
        fault = ', error="invalid_token"' if "Authorization" in request.headers else ""
        response.headers["WWW-Authenticate"] = f'Bearer realm="tidings"{fault}'
        return response

    def _check_origin(self, request: web.Request) -> None:
        origin = request.headers.get("Origin")
        if origin is not None and not self._allows(request, origin):
            raise errors.origin_refused(origin, "allowed_origins")

    def _allows(self, request: web.Request, origin: str) -> bool:
        """Pages on the list may ask, and those of the very host they ask."""
        listed = self._settings.allowed_origins
        return origin in listed or "*" in listed or origin.partition("://")[2] == request.headers.get("Host")

    def _cors(self, request: web.Request) -> dict[str, str]:
        origin = request.headers.get("Origin")
        if origin is None or not self._allows(request, origin):
            return {"Vary": "Origin"}
        return {
            "Vary": "Origin",
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Methods": "POST",
            "Access-Control-Allow-Headers": "Authorization, Content-Type",
            "Access-Control-Expose-Headers": "Retry-After, WWW-Authenticate",
            "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
        }


def _always(settings: BalancerSettings) -> dict[str, Any]:
    """What every ConnectResponse says."""
    answer = ConnectResponse()
    answer.heartbeat_interval.FromTimedelta(timedelta(seconds=settings.heartbeat_seconds))
    answer.backoff_base.FromTimedelta(timedelta(seconds=settings.backoff_base_seconds))
    answer.backoff_max.FromTimedelta(timedelta(seconds=settings.backoff_max_seconds))
    fields: dict[str, Any] = json_format.MessageToDict(answer, preserving_proto_field_name=True)
    return fields


def _bearer(request: web.Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise errors.unauthenticated("send the header Authorization: Bearer <token>")
    return token.strip()


async def _body(request: web.Request) -> ConnectRequest:
    try:
        text = await _read(request)
    except web.HTTPRequestEntityTooLarge:
        raise errors.content_too_large(request.content_length or MAX_BODY_BYTES + 1, MAX_BODY_BYTES) from None
    except TimeoutError:
        raise errors.invalid_field("body", f"it must arrive within {BODY_SECONDS:.0f} s") from None
    try:
        asked = json_format.Parse(text, ConnectRequest(), ignore_unknown_fields=True) if text not in _NOTHING else ConnectRequest()
    except (json_format.ParseError, ValueError, RecursionError) as error:
        raise errors.invalid_field("body", f"a ConnectRequest in JSON is needed ({error})") from error
    if len(asked.zone) > MAX_ZONE_CHARACTERS:
        raise errors.invalid_field("zone", f"at most {MAX_ZONE_CHARACTERS} characters are allowed")
    return asked


async def _read(request: web.Request) -> bytes:
    if request.content.is_eof():  # it came with the headers, as nearly always: no clock need be set
        return await request.read()
    async with asyncio.timeout(BODY_SECONDS):
        return await request.read()


def _json(body: Message, status: int) -> web.Response:
    return _written(json_format.MessageToJson(body, preserving_proto_field_name=True, indent=None), status)


def _written(text: str, status: int) -> web.Response:
    return web.Response(body=text.encode(), status=status, headers=_JSON)
