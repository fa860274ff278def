"""The command line itself: help, wrong words, and how failures are told."""

import subprocess
import sys
import time
from pathlib import Path

import jwt
import pytest

from cli.__main__ import COMMANDS, load, main
from cli.failure import INTERRUPTED, USAGE
from tests.cli.mesh_under_test import environment, run

HELP_SECONDS = 0.5
NAMED = [[name] for name in COMMANDS] + [["group", name] for name in ("create", "add", "remove", "list", "leave", "rename")]


def outcome(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a command run in this process."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    captured = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, captured.out, captured.err


@pytest.mark.parametrize("words", NAMED, ids=" ".join)
def test_every_command_has_help_with_an_example(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    status, out, _ = outcome(capsys, *words, "--help")
    assert status == 0
    assert "Example" in out


def test_help_answers_at_once() -> None:
    seconds, bare = zip(*((_seconds_of_help(), _seconds_of_bare()) for _ in range(3)), strict=True)
    assert min(seconds) < max(HELP_SECONDS, 4 * min(bare))


def _seconds_of_bare() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import typer, rich.console"], check=True, env=environment())
    return time.perf_counter() - started


def _seconds_of_help() -> float:
    started = time.perf_counter()
    done = run("--help")
    assert all(name in done.stdout for name in COMMANDS)
    return time.perf_counter() - started


def test_help_imports_no_service() -> None:
    program = "import sys, cli.__main__ as m\ntry: m.main(['--help'])\nexcept SystemExit: pass\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, env=environment())
    modules = set(done.stdout.splitlines()[-1].split())
    assert not modules & {"aiohttp", "grpc", "google.protobuf", "sqlalchemy", "tidings_client", "mesh.process", "prompt_toolkit"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tokn", "alice"], "token"),
        (["token"], "USER"),
        (["token", "alice", "--hours", "many"], "--hours"),
        (["send", "bob", "hi"], "--as"),
        (["history", "--as", "bob", "alice", "--limit", "0"], "--limit"),
        (["tail", "--as", "bob", "--count", "0"], "--count"),
        (["group", "make"], "make"),
        (["up", "--port", "99999"], "--port"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_command_line_is_one_line_that_says_where_help_is(
    capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    status, out, err = outcome(capsys, *words)
    assert (status, out) == (USAGE, "")
    assert said in err
    assert "--help" in err
    assert err.count("\n") == 1


def test_a_token_says_who_and_until_when(capsys: pytest.CaptureFixture[str]) -> None:
    secret = "s" * 32
    status, out, _ = outcome(capsys, "token", "alice", "--secret", secret, "--hours", "2")
    claims = jwt.decode(out.strip(), secret, ["HS256"], audience="tidings", issuer="tidings")
    assert status == 0
    assert claims["sub"] == "alice"
    assert abs(claims["exp"] - time.time() - 7200) < 10


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["token", "alice"], "tidings up"),
        (["token", "al ice", "--secret", "s" * 32], "al ice"),
        (["token", "alice", "--secret", "short"], "openssl rand"),
        (["send", "--as", "alice", "bob", "hi"], "tidings up"),
        (["send", "--as", "alice", "bob", "", "--secret", "s" * 32], "nothing to send"),
        (["up", "--registry", "zookeeper://x"], "etcd://"),
        (["up", "--store", "mysql://x"], "postgresql://"),
        (["up", "--log-level", "loud"], "warning"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_failure_is_one_line_with_the_next_step(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], said: str
) -> None:
    status, out, err = outcome(capsys, *words, "--data", str(tmp_path / "data"))
    assert (status, out) == (1, "")
    assert said in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDINGS_DEBUG", "1")
    assert "Traceback" in outcome(capsys, "token", "alice", "--data", str(tmp_path))[2]


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), INTERRUPTED), (RuntimeError("a\nb"), 1)])
def test_interrupts_are_quiet_and_the_unforeseen_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("cli.token.mint", fail)
    found, _, err = outcome(capsys, "token", "alice")
    assert found == status
    assert err.count("\n") == (0 if status == INTERRUPTED else 1)


def test_a_reader_that_left_is_no_error() -> None:
    program = f"{sys.executable} -m cli token alice --secret {'s' * 32} | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", program], check=True, capture_output=True, text=True, env=environment())
    assert done.stderr == ""


def test_every_command_is_where_the_table_says() -> None:
    for name in COMMANDS:
        assert load(name).name == name
