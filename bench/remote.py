"""A generator's process, as the bench speaks to it. See `bench.generator` and `bench.listeners` for the commands."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class GeneratorFailedError(Exception):
    """The generator could not do what it was told; the text says why."""


class RemoteGenerator:
    """Speaks to a generator over its pipes."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.pid = process.pid

    def do(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Carry out a command and give its answer.

        Raises:
            GeneratorFailedError: it failed, or the generator is gone.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise GeneratorFailedError("the generator was started without pipes")
        stdin.write(json.dumps({"do": command, **arguments}) + "\n")
        stdin.flush()
        line = stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": f"the generator ended during {command!r}"}
        if "error" in answer:
            raise GeneratorFailedError(answer["error"])
        return answer


@contextmanager
def generator(module: str = "bench.generator") -> Iterator[RemoteGenerator]:
    """Start a generator; it leaves when the context ends."""
    command = [sys.executable, "-m", module]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
    try:
        yield RemoteGenerator(process)
    finally:
        process.communicate(timeout=30)
