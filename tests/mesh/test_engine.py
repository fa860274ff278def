"""Every process chooses gRPC's engine before gRPC is there to have chosen."""

import os
import subprocess
import sys

import pytest

_ASK = "import {package}.__main__, os, mesh.engine; print(mesh.engine.LATE, os.environ['GRPC_EXPERIMENTS'])"


@pytest.mark.parametrize("package", ["balancer", "edge", "router", "store", "tagsvc", "scheduler", "cli"])
def test_a_process_chooses_before_grpc_loads(package: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_EXPERIMENTS"}
    command = [sys.executable, "-c", _ASK.format(package=package)]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert said == "False -event_engine_client,-event_engine_listener\n"


def test_who_set_it_decides() -> None:
    environment = {**os.environ, "GRPC_EXPERIMENTS": "fuse_filters"}
    command = [sys.executable, "-c", _ASK.format(package="router")]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert said == "False fuse_filters\n"
