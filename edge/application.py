"""The edge's public face: routes, errors as JSON bodies, CORS, health."""

from collections.abc import Callable

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from edge import refusals
from edge.api import Api
from edge.door import Door
from edge.longpoll import LongPoll
from edge.websocket import WebSocketHandler
from mesh import errors
from mesh.telemetry import Telemetry
from tidings.common.v1 import error_pb2

_METHODS = "GET, POST, PATCH, PUT, DELETE"
_HEADERS = "Authorization, Content-Type"
_PREFLIGHT_SECONDS = "600"  # how long a browser may remember the answer

_log = structlog.get_logger(__name__)


def build(
    websocket: WebSocketHandler,
    long_poll: LongPoll,
    api: Api,
    door: Door,
    telemetry: Telemetry,
    health: list[web.RouteDef],
    refused: Callable[[int], None],
) -> web.Application:
    """The application with all its routes.

    Args:
        health: the routes that tell how the edge is.
        refused: counts a named error.
    """
    # From the outside in: refusals carry CORS headers too.
    app = web.Application(middlewares=[_traced(telemetry), _cors(door), _errors_as_json(refused)])
    app.add_routes(
        [web.get("/v1/ws", websocket.handle), web.get("/chat", websocket.handle), web.post("/v1/poll", long_poll.handle)]
    )
    app.add_routes(api.routes())
    app.add_routes(health)
    return app


def _traced(telemetry: Telemetry) -> Middleware:
    """A span for each request but the connections, which last for hours."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        if resource is None or not resource.canonical.startswith(("/api/", "/messages/")):
            return await handler(request)
        with telemetry.server_span(f"{request.method} {resource.canonical}", dict(request.headers)):
            return await handler(request)

    return middleware


def _errors_as_json(refused: Callable[[int], None]) -> Middleware:
    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except errors.TidingsError as error:
            refused(error.code)
            return refusals.response(error)
        except web.HTTPException as error:
            refused(error_pb2.ERROR_CODE_UNKNOWN_REQUEST)
            return refusals.response(
                errors.unknown_request(f"{request.method} {request.path[:200]} ({error.reason})"), error.status
            )
        except ConnectionResetError:
            return web.Response()  # which nobody gets: the client left while it was being served
        except Exception:
            _log.exception("request failed", path=request.path)
            refused(error_pb2.ERROR_CODE_INTERNAL)
            return refusals.response(errors.internal("an unforeseen fault; the service's log has it"))

    return middleware


def _cors(door: Door) -> Middleware:
    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is None or not door.allows_origin(request):
            return await handler(request)
        preflight = request.method == hdrs.METH_OPTIONS and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
        response = web.Response(status=204) if preflight else await handler(request)
        if not response.prepared:
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            response.headers[hdrs.VARY] = hdrs.ORIGIN
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = hdrs.RETRY_AFTER
        if preflight:
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = _METHODS
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = _HEADERS
            response.headers[hdrs.ACCESS_CONTROL_MAX_AGE] = _PREFLIGHT_SECONDS
        return response

    return middleware
