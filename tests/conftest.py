"""What every test may count on."""

import signal

import structlog

import mesh.engine  # noqa: F401  first: it chooses gRPC's engine


def pytest_configure() -> None:
    """Let SIGINT end what the tests start, also where they run in the background of a script, which ignores it for all below; and
    log plainly, as services do: the default draws a traceback for a second, on the event loop."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], plain])
