"""Ports that stay a service's own while it is down: no client's connection is given one by chance."""

import random
import socket

_FIRST, _LAST = 10_240, 32_000  # below the range from which the kernel takes ports for outgoing connections


def lasting_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now, and that nobody gets who doesn't ask for it."""
    while True:
        port = random.randint(_FIRST, _LAST)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
