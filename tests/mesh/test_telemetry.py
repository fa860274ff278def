"""What was counted is what is read; health, logs and traces say what is so."""

import asyncio
import json
import logging
import threading
from collections.abc import Iterator

import aiohttp
import pytest
import structlog
from aiohttp import web
from opentelemetry import trace

from mesh.telemetry import Telemetry, admin_routes, configure_logging, listen, watch_loop_lag


def test_the_exposition_has_what_was_counted(telemetry: Telemetry) -> None:
    counter = telemetry.counter("messages", "Messages taken")
    counter.add(3, {"direction": "in"})
    counter.add(2, {"direction": "in"})
    latency = telemetry.histogram("message_delivery_latency_seconds", "Store to socket")
    latency.observe(0.004)
    latency.observe(7.0)
    level = [5.0]
    telemetry.gauge("concurrent_websocket_connections", "Open now", lambda: level[0])
    text = telemetry.exposition().decode()
    assert 'messages_total{direction="in"} 5.0' in text
    assert "# HELP messages_total Messages taken" in text
    assert 'message_delivery_latency_seconds_bucket{le="0.005"} 1.0' in text
    assert 'message_delivery_latency_seconds_bucket{le="10.0"} 2.0' in text
    assert "concurrent_websocket_connections 5.0" in text
    level[0] = 6.0
    assert "concurrent_websocket_connections 6.0" in telemetry.exposition().decode()


def test_every_sample_is_read_whenever_it_was_taken(telemetry: Telemetry) -> None:
    latency = telemetry.histogram("wait_seconds", "Waiting", ["why"])
    for _ in range(1_000):
        latency.labels("turn").observe(0.004)
    assert 'wait_seconds_count{why="turn"} 1000.0' in telemetry.exposition().decode()
    latency.labels("turn").observe(0.004)
    text = telemetry.exposition().decode()
    assert 'wait_seconds_count{why="turn"} 1001.0' in text
    assert 'wait_seconds_bucket{le="0.003",why="turn"} 0.0' in text


def test_samples_of_several_threads_are_each_read_once(telemetry: Telemetry) -> None:
    latency = telemetry.histogram("thinking_seconds", "In threads")

    def think() -> None:
        for _ in range(5_000):
            latency.observe(0.004)

    threads = [threading.Thread(target=think) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "thinking_seconds_count 20000.0" in telemetry.exposition().decode()


def test_services_of_one_process_share_a_counter(telemetry: Telemetry) -> None:
    telemetry.counter("messages", "Messages taken").add(1)
    telemetry.counter("messages", "Messages taken").add(2)
    assert "messages_total 3.0" in telemetry.exposition().decode()


def test_gauges_of_several_services_in_a_process_add_up(telemetry: Telemetry) -> None:
    telemetry.gauge("sessions", "Open now", lambda: 2)
    telemetry.gauge("sessions", "Open now", lambda: 3)
    assert "\nsessions 5.0" in telemetry.exposition().decode()


def test_two_processes_in_one_test_do_not_share_counters() -> None:
    one, other = Telemetry("one"), Telemetry("other")
    one.counter("events", "Things that happened").add(1)
    assert "events_total" in one.exposition().decode()
    assert "events_total" not in other.exposition().decode()
    one.close()
    other.close()


async def test_health_readiness_and_metrics_over_http(telemetry: Telemetry) -> None:
    missing = ["the store is away"]
    app = web.Application()
    app.add_routes(admin_routes(telemetry, lambda: missing[0]))
    async with listen(app, "127.0.0.1", 0) as port, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
        assert port > 0
        assert await status(http, "/healthz") == (200, "ok\n")
        assert await status(http, "/readyz") == (503, "the store is away\n")
        missing[0] = ""
        assert await status(http, "/readyz") == (200, "ready\n")
        telemetry.rpc("/a.B/C", "OK", 0.001)
        code, text = await status(http, "/metrics")
        assert code == 200
        assert 'rpc_server_duration_seconds_count{method="/a.B/C",outcome="OK"} 1.0' in text


async def status(http: aiohttp.ClientSession, path: str) -> tuple[int, str]:
    async with http.get(path) as response:
        return response.status, await response.text()


async def test_loop_lag_is_what_the_loop_was_held_up() -> None:
    reports: asyncio.Queue[float] = asyncio.Queue()
    task = asyncio.create_task(watch_loop_lag(reports.put_nowait, interval=0.01))
    assert await asyncio.wait_for(reports.get(), 5) >= 0
    held = asyncio.get_running_loop().time() + 0.1
    while asyncio.get_running_loop().time() < held:
        pass  # a loop that does something else all the time
    assert await asyncio.wait_for(reports.get(), 5) > 0.05
    task.cancel()


def test_spans_join_the_callers_trace_only_when_tracing() -> None:
    carrier = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    silent = Telemetry("silent")
    with silent.server_span("call", carrier), silent.span("batch", entries=3):
        assert not trace.get_current_span().get_span_context().is_valid
    silent.close()
    tracing = Telemetry("tracing", traces="http://127.0.0.1:1")
    with tracing.span("batch", entries=3):
        assert trace.get_current_span().get_span_context().is_valid
    with tracing.server_span("call", carrier):
        assert trace.get_current_span().get_span_context().trace_id == 0x0AF7651916CD43DD8448EB211C80319C


@pytest.fixture
def restored_logging() -> Iterator[None]:
    """Logging as it was before."""
    handlers, level = list(logging.root.handlers), logging.root.level
    yield
    logging.root.handlers[:], logging.root.level = handlers, level
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.mark.usefixtures("restored_logging")
def test_logs_are_json_lines_with_the_service_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("edge", "info", as_json=True)
    log = structlog.get_logger("test")
    log.debug("too fine")
    log.info("session opened", user="alice")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    said = json.loads(lines[0])
    assert said.pop("timestamp")
    assert said == {"event": "session opened", "user": "alice", "service": "edge", "level": "info"}
