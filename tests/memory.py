"""What this process's memory is made of, so that growth can be told apart by owner. Linux with glibc."""

import ctypes
import gc
import os
import re
import sys
import sysconfig
import tempfile
import tracemalloc
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

_LIBRARIES = Path(sysconfig.get_path("purelib"))
_OURS = Path(__file__).parents[1]
_ARENAS = re.compile(r"# arenas allocated current\s*=\s*([\d,]+)")
_ARENA_BYTES = 1 << 20  # of CPython since 3.10


class _MallInfo(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    )
    uordblks: int
    fordblks: int
    hblkhd: int


@dataclass(frozen=True, slots=True)
class Reading:
    """Bytes.

    Attributes:
        resident: anonymous memory in RAM.
        python: mapped by Python's allocator for objects up to 512 bytes.
        malloc: handed out by malloc: larger objects, and what C code keeps.
        free: kept by malloc for later.
        packages: what Python's allocators gave, by the package that asked; empty unless tracemalloc runs.
        types: live objects the collector knows, and bytes of them without what they refer to, by type.
    """

    resident: int
    python: int
    malloc: int
    free: int
    packages: dict[str, int] = field(default_factory=dict)
    types: dict[str, tuple[int, int]] = field(default_factory=dict)


def read(*, objects: bool = False) -> Reading:
    """Look at this process. With `objects` it takes seconds."""
    gc.collect()
    info = _mallinfo()
    return Reading(
        resident=_resident(),
        python=_python_arenas(),
        malloc=info.uordblks + info.hblkhd,
        free=info.fordblks,
        packages=_by_package() if tracemalloc.is_tracing() else {},
        types=_by_type() if objects else {},
    )


def trim() -> None:
    """Give back to the system what malloc keeps free."""
    ctypes.CDLL(None).malloc_trim(0)


def _mallinfo() -> _MallInfo:
    look = ctypes.CDLL(None).mallinfo2
    look.restype = _MallInfo
    found: _MallInfo = look()
    return found


def _resident() -> int:
    text = Path("/proc/self/status").read_text()
    return int(text.split("RssAnon:", 1)[1].split()[0]) * 1024


def _python_arenas() -> int:
    """As `sys._debugmallocstats` prints it, which it does to the descriptor of standard error."""
    with tempfile.TemporaryFile() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            sys._debugmallocstats()
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        file.seek(0)
        found = _ARENAS.search(file.read().decode())
    return int(found[1].replace(",", "")) * _ARENA_BYTES if found else 0


def _by_package() -> dict[str, int]:
    sizes: Counter[str] = Counter()
    for statistic in tracemalloc.take_snapshot().statistics("lineno"):
        frame = statistic.traceback[0]
        sizes[_package(frame.filename, frame.lineno)] += statistic.size
    return dict(sizes)


def _package(filename: str, line: int) -> str:
    path = Path(filename)
    if path.is_relative_to(_LIBRARIES):
        return f"{'/'.join(path.relative_to(_LIBRARIES).parts[:3])}:{line}"
    return f"{'/'.join(path.parts[-2:])}:{line}"


def _by_type() -> dict[str, tuple[int, int]]:
    count: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for one in gc.get_objects():
        name = f"{type(one).__module__}.{type(one).__qualname__}"
        count[name] += 1
        size[name] += sys.getsizeof(one)
    return {name: (count[name], size[name]) for name in count}
