"""What a process tells about itself: logs (structlog), metrics (OpenTelemetry, read by Prometheus), traces (OTLP), health.

Instruments are made here, by name. Counters are those of `mesh.instruments`; histograms are prometheus_client's own, for a sample
costs a tenth of what it does by OpenTelemetry, whose reader is Prometheus' registry in any case.
"""

import asyncio
import gc
import logging
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import structlog
from aiohttp import web
from opentelemetry import propagate, trace
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Histogram, ProcessCollector, generate_latest

from mesh.instruments import Counter

_LATENCY_BUCKETS = [0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]  # seconds


class Telemetry:
    """One process's meters and tracer. In a process with several services they share it.

    Args:
        service: the process's name in traces.
        traces: OTLP endpoint, or empty to send no traces.
    """

    def __init__(self, service: str, traces: str = "") -> None:
        self._prometheus = CollectorRegistry()
        ProcessCollector(registry=self._prometheus)
        resource = Resource.create({"service.name": service})
        reader = PrometheusMetricReader(registry=self._prometheus, scope_info_enabled=False)
        self._provider = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
        self._tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
        if traces:
            _export(self._tracers, traces)
        self._meter = self._provider.get_meter("tidings")
        self.tracer = self._tracers.get_tracer("tidings")
        self._tracing = bool(traces)
        self._gauges: dict[str, dict[tuple[tuple[str, str], ...], list[Callable[[], float]]]] = {}  # name -> labels -> readers
        self._counters: dict[str, Counter] = {}
        self._histograms: dict[str, Histogram] = {}
        self._rpcs = self.histogram("rpc_server_duration_seconds", "Unary calls served, by outcome", ("method", "outcome"))

    def counter(self, name: str, description: str, unit: str = "1") -> Counter:
        """A counter; services in one process share it by its name."""
        if name not in self._counters:
            self._counters[name] = Counter(self._meter, name, description, unit)
        return self._counters[name]

    def histogram(self, name: str, description: str, labels: Sequence[str] = ()) -> Histogram:
        """A histogram of seconds; services in one process share it by its name."""
        if name not in self._histograms:
            self._histograms[name] = Histogram(name, description, labels, registry=self._prometheus, buckets=_LATENCY_BUCKETS)
        return self._histograms[name]

    def gauge(self, name: str, description: str, read: Callable[[], float], **labels: str) -> None:
        """Publish a number that is read when asked for; several readers of one name and labels, in a process with several services,
        add up."""
        known = name in self._gauges
        by_labels = self._gauges.setdefault(name, {})
        by_labels.setdefault(tuple(sorted(labels.items())), []).append(read)

        def observe(_: CallbackOptions) -> list[Observation]:
            return [Observation(sum(one() for one in readers), dict(labelled)) for labelled, readers in by_labels.items()]

        if not known:
            self._meter.create_observable_gauge(name, [observe], description=description)

    def rpc(self, method: str, outcome: str, seconds: float) -> None:
        """Count one unary call served."""
        self._rpcs.labels(method, outcome).observe(seconds)

    @contextmanager
    def server_span(self, name: str, carrier: dict[str, str]) -> Iterator[None]:
        """A span for a call being served, under the caller's when it sent one."""
        if not self._tracing:
            yield
            return
        parent = propagate.extract(carrier)
        with self.tracer.start_as_current_span(name, parent, kind=trace.SpanKind.SERVER):
            yield

    @contextmanager
    def span(self, name: str, **attributes: int | str) -> Iterator[None]:
        """A span for work of one's own, such as a batch, which belongs to no single caller's trace."""
        if not self._tracing:
            yield
            return
        with self.tracer.start_as_current_span(name, attributes=attributes):
            yield

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._prometheus)

    def close(self) -> None:
        """Send what is left and stop."""
        self._provider.shutdown()
        self._tracers.shutdown()


def _export(tracers: TracerProvider, endpoint: str) -> None:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint, insecure=endpoint.startswith("http://"))))


def configure_logging(service: str, level: str, *, as_json: bool) -> None:
    """Send structlog and the standard library's logs to stderr, in one form."""
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Plain: the default shows all local variables, people's messages among them, and takes the event loop a second to draw.
    console = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
    renderer = structlog.processors.JSONRenderer() if as_json else console
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, renderer] if as_json else [*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.bind_contextvars(service=service)
    logging.basicConfig(level=max(number, logging.WARNING), stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")


def admin_routes(telemetry: Telemetry, ready: Callable[[], str]) -> list[web.RouteDef]:
    """/healthz (the loop turns), /readyz (`ready` returns "" or what is missing), /metrics."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        missing = ready()
        return web.Response(text=missing + "\n" if missing else "ready\n", status=503 if missing else 200)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=telemetry.exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return [web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)]


def public_routes(telemetry: Telemetry, ready: Callable[[], str], admin_url: str) -> list[web.RouteDef]:
    """What of these a port for clients has: no /metrics, which are no business of theirs, unless the process has no admin port."""
    routes = admin_routes(telemetry, ready)
    return [route for route in routes if route.path != "/metrics" or not admin_url]


@asynccontextmanager
async def listen(
    app: web.Application, host: str, port: int, tls: ssl.SSLContext | None = None, **options: object
) -> AsyncIterator[int]:
    """Serve an aiohttp application until the context ends; gives the port. Options are AppRunner's."""
    runner = web.AppRunner(app, access_log=None, **options)  # type: ignore[arg-type]
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, ssl_context=tls, backlog=4096).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def watch_loop_lag(report: Callable[[float], None], interval: float = 0.5) -> None:
    """Tell every `interval` seconds how many seconds late the event loop runs. Runs until cancelled."""
    while True:
        before = time.monotonic()
        await asyncio.sleep(interval)
        report(max(0.0, time.monotonic() - before - interval))


def settle_memory() -> None:
    """Tune the collector for a server: what start-up built lives for ever, so don't scan it; collect the young less often.

    The middle generation is collected after every young one: with twenty of those in it, whatever lives long was looked at a second
    time by the hundred thousand. While thousands of sessions came back that was a fifth of an edge's CPU, in pauses of 50 ms.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 0, 500)
