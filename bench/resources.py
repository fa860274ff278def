"""What a run stands on and what it costs: hardware and versions; CPU and memory by service."""

import os
import platform
import sqlite3
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil

_PACKAGES = ("tidings", "aiohttp", "grpcio", "protobuf", "uvloop", "sqlalchemy", "psycopg", "aiosqlite")


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds used so far, and memory now in MB (proportional: pages shared with others count in part)."""

    cpu_seconds: float
    memory_mb: float


def hardware() -> dict[str, str]:
    """The machine."""
    model = next((line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    memory = psutil.virtual_memory().total / 2**30
    return {
        "cpu": model or platform.processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory:.1f} GiB",
        "system": platform.platform(),
    }


def versions() -> dict[str, str]:
    """The software."""
    packages = {name: version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version, **packages}


def measure(pids: dict[str, int]) -> dict[str, Usage]:
    """What each service's process and its children use."""
    return {service: _usage(pid) for service, pid in pids.items()}


def _usage(pid: int) -> Usage:
    root = psutil.Process(pid)
    cpu = memory = 0.0
    for process in (root, *root.children(recursive=True)):
        try:
            times = process.cpu_times()
            cpu += times.user + times.system
            memory += process.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue  # a child that ended between the list and the look
    return Usage(round(cpu, 3), round(memory / 2**20, 1))


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []
