"""Fixtures: one `tidings up` for a module."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.mesh_under_test import MeshUnderTest


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshUnderTest]:
    """A running mesh of this module's own."""
    under_test = MeshUnderTest(Path(tmp_path_factory.mktemp("mesh")))
    under_test.start()
    try:
        yield under_test
    finally:
        if under_test.process is not None:
            under_test.end(signal.SIGKILL)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the developer's environment changes what is tested."""
    for name in [name for name in os.environ if name.startswith("TIDINGS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "120")
