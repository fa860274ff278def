"""The parts of the idle bench: clients that speak TLS and beat, and processes that collect their garbage when told."""

from pathlib import Path

import pytest

from bench.certificates import make_certificates
from bench.collected import collect, environment
from bench.fan_out import bare_server
from bench.remote import GeneratorFailedError, generator


def test_clients_connect_with_tls_to_whom_they_trust(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    files, others = make_certificates(ours), make_certificates(theirs)
    with bare_server(files.certificate, files.key) as (_, port), generator("bench.idlers") as clients:
        url = f"wss://127.0.0.1:{port}/"
        clients.do("connect_bare", url=url, count=3, authority=files.authority)
        assert clients.do("rest", seconds=0.2)["closed"] == 0
        with pytest.raises(GeneratorFailedError, match="CERTIFICATE_VERIFY_FAILED"):
            clients.do("connect_bare", url=url, count=1, authority=others.authority)
        with pytest.raises(GeneratorFailedError, match="plain ws"):
            clients.do("connect_bare", url=url, count=1)


def test_those_who_leave_are_counted() -> None:
    with generator("bench.idlers") as clients:
        with bare_server() as (_, port):
            clients.do("connect_bare", url=f"ws://127.0.0.1:{port}/", count=5)
        assert clients.do("rest", seconds=0.1)["closed"] == 5


def test_a_process_collects_when_told_and_goes_on() -> None:
    with bare_server(environment=environment()) as (process, port), generator("bench.idlers") as clients:
        collect([process.pid])
        clients.do("connect_bare", url=f"ws://127.0.0.1:{port}/", count=1)
        assert process.poll() is None
