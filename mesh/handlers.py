"""Wrapping gRPC method handlers, of all four kinds alike."""

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import grpc

Handler = Any  # grpc.RpcMethodHandler has no useful type
Context = Any  # grpc.aio.ServicerContext of whatever the method takes and gives
Guard = Callable[[Context], AbstractAsyncContextManager[None]]


def around(handler: Handler, guard: Guard) -> Handler:
    """The handler, each call inside a context that `guard` makes for it."""
    inner = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream

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


_MAKERS: dict[tuple[bool, bool], Callable[..., Handler]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}
