"""Certificates for one run: a private authority, and an edge's certificate by it."""

import datetime
from pathlib import Path
from typing import NamedTuple

from mesh.certificates import issue, new_authority

_DAYS = 1


class Certificates(NamedTuple):
    """PEM files; all empty for a run without TLS."""

    authority: str = ""
    certificate: str = ""
    key: str = ""


def make_certificates(folder: Path) -> Certificates:
    """Make them in a folder of the run's own."""
    now = datetime.datetime.now(datetime.UTC)
    authority = new_authority(now, _DAYS)
    edge = issue(authority, "edge", now, _DAYS)
    files = Certificates(str(folder / "ca.pem"), str(folder / "edge.pem"), str(folder / "edge.key"))
    for name, content in zip(files, (authority.certificate_pem, edge.certificate_pem, edge.key_pem), strict=True):
        Path(name).touch(0o600)
        Path(name).write_bytes(content)
    return files
