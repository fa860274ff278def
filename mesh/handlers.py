"""Wrapping gRPC method handlers: of all four kinds alike, and what they read."""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from mesh import errors

Handler = Any  # grpc.RpcMethodHandler has no useful type
Context = Any  # grpc.aio.ServicerContext of whatever the method takes and gives
Guard = Callable[[Context], AbstractAsyncContextManager[None]]


def around(handler: Handler, guard: Guard) -> Handler:
    """The handler, each call inside a context that `guard` makes for it."""
    inner = _behaviour(handler)

    async def answer(request: Any, context: Context) -> Any:
        async with guard(context):
            return await inner(request, context)

    async def generate(request: Any, context: Context) -> AsyncIterator[Any]:
        async with guard(context):
            async for response in inner(request, context):
                yield response

    make = _MAKERS[handler.request_streaming, handler.response_streaming]
    behaviour = generate if inspect.isasyncgenfunction(inner) else answer
    return make(behaviour, handler.request_deserializer, handler.response_serializer)


_UNREADABLE = object()  # in place of a request whose bytes are no message of its type


class Reading(grpc.aio.ServerInterceptor):
    """Refuses requests whose bytes are no message of the method's type. It comes last: who may not call is told that first.

    gRPC reads a single request before any handler is called, so such a one is handed in marked; those of a stream are read one by
    one inside the handler, and fail there.
    """

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]], details: grpc.HandlerCallDetails
    ) -> Handler:
        """Put the check into the method."""
        handler = await continuation(details)
        if handler is None or handler.request_deserializer is None:
            return handler
        return _reading_many(handler) if handler.request_streaming else _reading_one(handler)


def _reading_many(handler: Handler) -> Handler:
    parse = handler.request_deserializer

    def read(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError:
            raise _unreadable() from None

    return _MAKERS[True, handler.response_streaming](_behaviour(handler), read, handler.response_serializer)


def _reading_one(handler: Handler) -> Handler:
    parse, inner = handler.request_deserializer, _behaviour(handler)

    def read(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError:
            return _UNREADABLE

    async def answer(request: Any, context: Context) -> Any:
        return await inner(_readable(request), context)

    async def generate(request: Any, context: Context) -> AsyncIterator[Any]:
        async for response in inner(_readable(request), context):
            yield response

    behaviour = generate if inspect.isasyncgenfunction(inner) else answer
    return _MAKERS[False, handler.response_streaming](behaviour, read, handler.response_serializer)


def _behaviour(handler: Handler) -> Callable[..., Any]:
    found: Callable[..., Any] = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    return found


def _readable(request: Any) -> Any:
    if request is _UNREADABLE:
        raise _unreadable()
    return request


def _unreadable() -> errors.TidingsError:
    return errors.invalid_field("request", "bytes that are a message of this method's type")


_MAKERS: dict[tuple[bool, bool], Callable[..., Handler]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}
