"""What every test may count on."""

import signal


def pytest_configure() -> None:
    """Let SIGINT end what the tests start, also where they run in the background of a script, which ignores it for all below."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
