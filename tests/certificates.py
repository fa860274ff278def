"""Folders of certificates for tests, as `tidings certs init` makes them."""

import datetime
from collections.abc import Iterable
from pathlib import Path

from cli.certs_folder import Folder
from mesh.permissions import ROLES


def make_certificates(path: Path, roles: Iterable[str] = ROLES, days: int = 90) -> Path:
    """An authority of its own, and a certificate for each role; gives the folder."""
    folder = Folder(path, datetime.datetime.now(datetime.UTC))
    folder.make_authority(days)
    authority = folder.authority()
    for role in roles:
        folder.make(authority, role, days)
    return path
