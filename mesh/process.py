"""The life of a process: start, serve until told to stop, drain, leave.

Each service's `serve(settings, registry, telemetry)` is an async context manager that builds its collaborators in order and
closes them in reverse. `run` puts one of them under signals, behind an admin listener that answers from the first moment: /readyz
says "starting" until the service has entered the registry.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, TypeVar

import structlog
import uvloop
from aiohttp import web

from mesh.etcd_registry import EtcdRegistry
from mesh.registry import MemoryRegistry, Registry
from mesh.settings import ServiceSettings
from mesh.telemetry import Telemetry, admin_routes, configure_logging, listen, settle_memory, watch_loop_lag

S = TypeVar("S", bound=ServiceSettings)
Serve = Callable[[S, Registry, Telemetry], AbstractAsyncContextManager[object]]
_log = structlog.get_logger(__name__)


def run(service: str, settings: S, serve: Serve[S]) -> None:
    """Run one service in this process until SIGTERM or SIGINT."""
    configure_logging(service, settings.log_level, as_json=settings.log_json)
    interrupt_nobody()
    uvloop.run(_main(service, settings, serve))


def interrupt_nobody() -> None:
    """Have the kernel not interrupt others for this thread, and those it starts, when they wake up (Linux).

    A service that writes to the next one wakes it. On a machine that they share, the kernel would stop the one in the middle of
    its work for the other, at every hop: finishing first costs less, and all is there sooner (docs/adr/0014).
    """
    with suppress(AttributeError, OSError):  # not Linux, or a sandbox that won't let us: then it is as it was
        if os.sched_getscheduler(0) == os.SCHED_OTHER:  # who started us with another policy knows why
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


async def _main(service: str, settings: S, serve: Serve[S]) -> None:
    stop, up = stop_signal(), asyncio.Event()
    telemetry = Telemetry(service, settings.traces)

    def missing() -> str:
        return "stopping" if stop.is_set() else "" if up.is_set() else "starting"

    try:
        async with (
            _administered(settings, telemetry, missing) as known,
            open_registry(settings.registry) as registry,
            serve(known, registry, telemetry),
            _lag_published(telemetry),
        ):
            settle_memory()
            up.set()
            _log.info("serving", admin=known.admin_url)
            await stop.wait()
            _log.info("stopping")
    finally:
        telemetry.close()


@asynccontextmanager
async def _administered(settings: S, telemetry: Telemetry, missing: Callable[[], str]) -> AsyncIterator[S]:
    """Answer on the admin port until the context ends; gives the settings with the URL of it, which goes into the registry."""
    app = web.Application()
    app.add_routes(admin_routes(telemetry, missing))
    async with listen(app, settings.host, settings.admin_port) as port:
        url = settings.admin_url or f"http://{settings.advertised_host}:{port}"
        yield settings.model_copy(update={"admin_url": url})


@asynccontextmanager
async def _lag_published(telemetry: Telemetry) -> AsyncIterator[None]:
    """Publish how late this process's event loop runs until the context ends."""
    lag = 0.0

    def report(seconds: float) -> None:
        nonlocal lag
        lag = seconds

    telemetry.gauge("loop_lag_seconds", "How late the event loop runs", lambda: lag)
    async with background(watch_loop_lag(report)):
        yield


def stop_signal() -> asyncio.Event:
    """An event set by the first SIGTERM or SIGINT; a second one ends the process at once."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        stop.set()
        loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    return stop


@asynccontextmanager
async def open_registry(url: str) -> AsyncIterator[Registry]:
    """The registry a URL names.

    Raises:
        ValueError: neither memory:// nor etcd://.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "memory":
        yield MemoryRegistry()
    elif scheme == "etcd" and rest:
        async with EtcdRegistry.open(rest.split(",")) as registry:
            yield registry
    else:
        raise ValueError(f"registry {url!r}: use memory:// or etcd://host:port[,host:port…]")


@asynccontextmanager
async def background(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run coroutines beside the body; cancelled when it ends.

    One that fails is logged, cancels the body, and its exception leaves the context in place of the cancellation.
    """
    owner, failures = asyncio.current_task(), list[BaseException]()
    assert owner is not None, "an asynchronous context is entered in a task"  # noqa: S101

    def on_done(task: asyncio.Task[None]) -> None:
        failure = None if task.cancelled() else task.exception()
        if failure is None:
            return
        _log.error("background task failed", task=task.get_name(), exc_info=failure)
        if not ending and not failures:
            failures.append(failure)
            owner.cancel()

    ending = False
    tasks = [asyncio.create_task(one, name=getattr(one, "__qualname__", repr(one))) for one in work]
    for task in tasks:
        task.add_done_callback(on_done)
    try:
        yield
    except asyncio.CancelledError:
        if failures and owner.uncancel() == 0:  # else someone else wants the body to end as well
            raise failures[0] from None
        raise
    finally:
        ending = True
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
