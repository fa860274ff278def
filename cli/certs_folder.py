"""A folder of certificates: ca.pem and ca.key, and ROLE.pem and ROLE.key for each role.

Keys are readable by their owner only. What is there is replaced by `renew` and by nothing else; each file is replaced in one step.
Services need ca.pem and their own two files; ca.key is needed to sign, and is best kept away from them.
"""

import datetime
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from cli.failure import CommandError
from mesh import certificates
from mesh.certificates import CertificateError, Pair
from mesh.mutual_tls import AUTHORITY_FILE, files

AUTHORITY = "authority"
_PRIVATE, _PUBLIC = 0o600, 0o644
_SOON = datetime.timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Entry:
    """One certificate of the folder; `ends` is None when there is none to read, `fault` empty when it can be used."""

    role: str
    certificate: Path
    ends: datetime.datetime | None
    fault: str = ""


class Folder:
    """See the module.

    Args:
        path: the folder.
        now: the time for all that is signed or judged.
    """

    def __init__(self, path: Path, now: datetime.datetime) -> None:
        self._path = path
        self._now = now

    def make_authority(self, days: int) -> bool:
        """Make the folder and its authority; False when it has one."""
        try:
            self._path.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise CommandError(f"can't make {self._path} ({error.strerror})", "give another folder") from error
        certificate, key = self._authority_files()
        if certificate.exists() or key.exists():
            return False
        self._write(certificates.new_authority(self._now, days), certificate, key)
        return True

    def authority(self) -> Pair:
        """The authority, to sign with.

        Raises:
            CommandError: it is not whole, or has ended.
        """
        pair = _read(*self._authority_files(), "the authority", "bring it back, or init a folder without an authority")
        if pair.certificate.not_valid_after_utc <= self._now:
            raise CommandError(f"the authority in {self._path} has ended", "make another folder with `tidings certs init`")
        return pair

    def make(self, authority: Pair, role: str, days: int) -> bool:
        """Make a role's certificate; False when it has one.

        Raises:
            CommandError: it has a certificate without its key, or the other way round.
        """
        certificate, key = files(self._path, role)
        if certificate.exists() and key.exists():
            return False
        if certificate.exists() or key.exists():
            missing = key if certificate.exists() else certificate
            raise CommandError(f"{missing} is missing", f"bring it back, or `tidings certs renew {self._path} {role}`")
        self.replace(authority, role, days)
        return True

    def replace(self, authority: Pair, role: str, days: int) -> None:
        """Make a role's certificate anew, with another key."""
        self._write(certificates.issue(authority, role, self._now, days), *files(self._path, role))

    def entry(self, role: str) -> Entry:
        """What there is of a role, or of the authority."""
        certificate, key = self._authority_files() if role == AUTHORITY else files(self._path, role)
        try:
            shown = certificates.read_certificate(certificate.read_bytes(), str(certificate))
        except FileNotFoundError:
            return Entry(role, certificate, None, "missing")
        except (OSError, CertificateError) as error:
            return Entry(role, certificate, None, _words(error))
        return Entry(role, certificate, shown.not_valid_after_utc, self._fault(role, certificate, key))

    def _fault(self, role: str, certificate: Path, key: Path) -> str:
        if key.exists() and key.stat().st_mode & 0o077:
            return f"others may read {key}: chmod 600 it, and renew it if they may have"
        if role == AUTHORITY:
            return ""  # its key may well be kept elsewhere
        try:
            shown = certificates.read_pair(certificate.read_bytes(), key.read_bytes(), role).certificate
            authority = (self._path / AUTHORITY_FILE).read_bytes()
            certificates.check(shown, certificates.read_certificate(authority, AUTHORITY_FILE), role, self._now)
        except (OSError, CertificateError) as error:
            return _words(error)
        return "ends soon: renew it" if shown.not_valid_after_utc - self._now < _SOON else ""

    def _authority_files(self) -> tuple[Path, Path]:
        return self._path / AUTHORITY_FILE, self._path / "ca.key"

    def _write(self, pair: Pair, certificate: Path, key: Path) -> None:
        try:
            _replace(key, pair.key_pem, _PRIVATE)
            _replace(certificate, pair.certificate_pem, _PUBLIC)
        except OSError as error:
            raise CommandError(f"can't write in {self._path} ({error.strerror})", "give a folder of yours, with room") from error


def _read(certificate: Path, key: Path, name: str, hint: str) -> Pair:
    try:
        return certificates.read_pair(certificate.read_bytes(), key.read_bytes(), name)
    except OSError as error:
        raise CommandError(f"can't read {error.filename} ({error.strerror})", hint) from error


def _words(error: OSError | CertificateError) -> str:
    return f"can't read {error.filename} ({error.strerror})" if isinstance(error, OSError) else str(error)


def _replace(path: Path, content: bytes, mode: int) -> None:
    part = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
