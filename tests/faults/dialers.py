"""Who holds the other end of a connection on this machine: from the kernel's tables (Linux, proc(5))."""

from collections.abc import Mapping
from pathlib import Path

_LOCAL, _INODE = 1, 9  # columns of the tables
_TABLES = {"/proc/net/tcp": "0100007F", "/proc/net/tcp6": "0000000000000000FFFF00000100007F"}
"""With how 127.0.0.1 is written there; gRPC calls it from sockets of IPv6."""


def holder(port: int, pids: Mapping[str, int]) -> str:
    """The name of the process that has a socket on this local port of 127.0.0.1; "" when it is none of them.

    Args:
        pids: name -> process id.
    """
    inode = _inode(port)
    return next((name for name, pid in pids.items() if inode and _holds(pid, inode)), "")


def _inode(port: int) -> str:
    for table, address in _TABLES.items():
        wanted = f"{address}:{port:04X}"
        for line in Path(table).read_text().splitlines():
            columns = line.split()
            if columns[_LOCAL] == wanted and columns[_INODE] != "0":
                return columns[_INODE]
    return ""


def _holds(pid: int, inode: str) -> bool:
    try:
        return any(_is(one, inode) for one in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:  # it has ended
        return False


def _is(descriptor: Path, inode: str) -> bool:
    try:
        return str(descriptor.readlink()) == f"socket:[{inode}]"
    except OSError:  # closed meanwhile
        return False
