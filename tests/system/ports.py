"""Ports that stay a service's own while it is down: no client's connection is given one by chance, and no other fleet on this
machine, though it starts at the same moment."""

import fcntl
import functools
import random
import socket
import tempfile
from pathlib import Path
from typing import IO

_FIRST, _LAST = 10_240, 32_000  # below the range from which the kernel takes ports for outgoing connections
_CLAIMS = "tidings-test-ports"  # a file of which each process locks, for as long as it lives, the bytes whose numbers are its ports
_given: set[int] = set()  # here: a process's own locks don't keep it out


def lasting_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now, and that nobody gets who doesn't ask for it by its number."""
    while True:
        port = random.randint(_FIRST, _LAST)
        if port not in _given and _claim(port) and _free(port):
            return port


def _claim(port: int) -> bool:
    """Whether no other process has it; from then on none gets it."""
    try:
        fcntl.lockf(_claims(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    _given.add(port)
    return True


@functools.cache
def _claims() -> IO[bytes]:
    return (Path(tempfile.gettempdir()) / _CLAIMS).open("ab")


def _free(port: int) -> bool:
    with socket.socket() as listener:
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
