"""A real `tidings up`, and the real command run against it: as a process, or here, which is a tenth of the time."""

import io
import json
import os
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

from cli.__main__ import main
from cli.plan import free_port

READY_SECONDS = 30.0
COMMAND_SECONDS = 30.0
HOST = "127.0.0.1"
FREE = ("--tagsvc-port", "0", "--scheduler-port", "0")


class MeshUnderTest:
    """One data folder, its ports, and the process that runs there, which may be killed and started again."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.port = free_port(HOST)
        self.edge_port = free_port(HOST)
        self.process: subprocess.Popen[str] | None = None
        self.said: list[str] = []

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def start(self, *more: str) -> None:
        """Start it and wait until it says what to type next."""
        options = ["--data", str(self.data), "--port", str(self.port), "--edge-port", str(self.edge_port), *FREE, *more]
        self.process = popen("up", *options)
        self.said = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if "--as bob alice" in line:
                return
        raise AssertionError(f"it ended with {self.process.wait()}: {self.said}")

    def end(self, number: signal.Signals) -> int:
        """Signal it and wait for its end; gives the status."""
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait(READY_SECONDS)
        if self.process.stdout is not None:
            self.said += self.process.stdout.readlines()
            self.process.stdout.close()
        self.process = None
        return status

    def run(self, *words: str, ok: bool = True, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run `tidings …` against it, here."""
        return run_here(*words, "--data", str(self.data), ok=ok, stdin=stdin)

    def run_process(self, *words: str, ok: bool = True, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run `tidings …` against it, as a process."""
        return run(*words, "--data", str(self.data), ok=ok, stdin=stdin)

    def json(self, *words: str) -> Any:
        """What `tidings … --json` printed, which must be one JSON value on one line."""
        lines = self.run(*words, "--json").stdout.splitlines()
        assert len(lines) == 1, lines
        return json.loads(lines[0])

    def json_lines(self, *words: str) -> list[Any]:
        """What `tidings … --json` printed, one value a line."""
        return [json.loads(line) for line in self.run(*words, "--json").stdout.splitlines()]

    def open(self, *words: str) -> "subprocess.Popen[str]":
        """Start `tidings …` against it, with pipes."""
        return popen(*words, "--data", str(self.data))


def run(*words: str, ok: bool = True, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "cli", *words],
        check=False,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        env=environment(),
    )
    return _checked(done, ok=ok)


def run_here(*words: str, ok: bool = True, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command in this process."""
    out, err, status = io.StringIO(), io.StringIO(), None
    with mock.patch.object(sys, "stdin", io.StringIO(stdin)), redirect_stdout(out), redirect_stderr(err):
        try:
            main(words)
        except SystemExit as ended:
            status = ended.code
    assert isinstance(status, int)
    done = subprocess.CompletedProcess[str](list(words), status, out.getvalue(), err.getvalue())
    return _checked(done, ok=ok)


def _checked(done: subprocess.CompletedProcess[str], *, ok: bool) -> subprocess.CompletedProcess[str]:
    assert not ok or done.returncode == 0, (done.args, done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def popen(*words: str) -> "subprocess.Popen[str]":
    """Start the command with pipes."""
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-m", "cli", *words], stdin=pipe, stdout=pipe, text=True, env=environment())


def environment() -> dict[str, str]:
    """Ours, without what would change the commands."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TIDINGS_")} | {"COLUMNS": "120"}
