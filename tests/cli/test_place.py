"""The data folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.failure import CommandError
from cli.place import DEFAULT_URL, Place, Running

RUNNING = Running(url="http://127.0.0.1:9", pid=os.getpid(), ports={"balancer": [9]}, edges=["http://127.0.0.1:10"])


def test_secrets_are_made_once_for_their_owner_only(tmp_path: Path) -> None:
    place = Place(tmp_path)
    made = place.make_secrets()
    assert place.make_secrets() == made == place.read_secrets()
    assert len(made.token_secret) >= 32
    assert made.token_secret != made.ticket_secret
    assert place.secrets_file.stat().st_mode & 0o777 == 0o600


def test_missing_and_broken_secrets_say_what_to_do(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with pytest.raises(CommandError, match="tidings up"):
        place.read_secrets()
    place.secrets_file.write_text("{")
    with pytest.raises(CommandError, match="remove it"):
        place.read_secrets()
    assert place.token_secret("given") == "given"


def test_run_file_is_there_while_running(tmp_path: Path) -> None:
    place = Place(tmp_path)
    assert place.running() is None
    assert place.url(None) == DEFAULT_URL
    with place.announce(RUNNING):
        assert place.running() == RUNNING
        assert RUNNING.alive
        assert place.url(None) == RUNNING.url
        assert place.url("http://elsewhere:1/") == "http://elsewhere:1"
        assert place.urls("http://a:1/, http://b:2") == ["http://a:1", "http://b:2"]
        assert place.urls(None) == [RUNNING.url]
    assert place.running() is None
    assert place.url(None) == RUNNING.url, "what is said now goes to the same mesh later"


def test_what_a_name_meant_is_remembered_for_each_user_and_mesh(tmp_path: Path) -> None:
    place = Place(tmp_path)
    assert place.recall("bob", "http://a", "team") == ""
    place.remember("bob", "http://a", "team", "g1")
    place.remember("bob", "http://a", "crew", "g2")
    assert place.recall("bob", "http://a", "team") == "g1"
    assert place.recall("bob", "http://b", "team") == ""
    assert place.recall("eve", "http://a", "team") == ""


def test_a_run_file_of_a_dead_process_is_known_as_such(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    assert not Running(url="http://x", pid=dead.pid, ports={}).alive
    (tmp_path / "run.json").write_text(json.dumps({"nonsense": 1}))
    assert Place(tmp_path).running() is None


def test_a_run_file_of_another_version_is_read(tmp_path: Path) -> None:
    older = {"url": "http://a", "pid": 1, "ports": {}, "edges": ["http://b"], "store": "sqlite", "registry": "memory://"}
    (tmp_path / "run.json").write_text(json.dumps(older))
    found = Place(tmp_path).running()
    assert found is not None
    assert (found.url, found.instances, found.nodes, found.urls) == ("http://a", [], {}, [])
    (tmp_path / "run.json").write_text(json.dumps(older | {"newer": True}))
    assert Place(tmp_path).running() == found


def test_the_folder_is_held_by_one(tmp_path: Path) -> None:
    with Place(tmp_path).lock(), pytest.raises(CommandError, match=f"pid {os.getpid()}"), Place(tmp_path).lock():
        pass
    with Place(tmp_path).lock():
        pass


def test_a_dead_holder_holds_nothing(tmp_path: Path) -> None:
    program = (
        f"import os, pathlib\nfrom cli.place import Place\nPlace(pathlib.Path({str(tmp_path)!r})).lock().__enter__()\nos._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 9
    assert (tmp_path / "lock").read_text()
    with Place(tmp_path).lock():
        assert (tmp_path / "lock").read_text() == str(os.getpid())


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CommandError, match="--data"):
        Place(tmp_path / "file" / "data").prepare()


def test_each_open_client_has_a_device_of_its_own_and_finds_it_again(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with place.client_state("bob", "http://a", "tail") as first, place.client_state("bob", "http://a", "tail") as second:
        assert first[0] != second[0]
        assert first[1] != second[1]
    with place.client_state("bob", "http://a", "tail") as again:
        assert again == first
    with place.client_state("bob", "http://b", "tail") as elsewhere:
        assert elsewhere[0] != first[0]
