"""Mutual TLS among services: what a process shows and whom it trusts, and the door of a port that only the mesh calls.

Both ends show a certificate of the mesh's own authority. The caller demands the name of the service it means; the server reads the
caller's role and lets it call what `mesh.permissions` lists, nothing else. Files are read once: a renewal takes a restart.
"""

import datetime
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import grpc
import structlog

from mesh import certificates, errors
from mesh.certificates import CertificateError
from mesh.handlers import Context, Handler, around
from mesh.permissions import OPERATOR, Permissions
from mesh.settings import ServiceSettings

AUTHORITY_FILE = "ca.pem"
_SOON = datetime.timedelta(days=14)  # time enough to renew in working hours
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class MutualTls:
    """What one process shows and whom it trusts, all in PEM. Get it with `of`, `read` or `in_folder`."""

    authority: bytes
    certificate: bytes
    key: bytes = field(repr=False)

    @property
    def shown(self) -> Mapping[str, Sequence[bytes]]:
        """What a server makes of the certificate, as gRPC's `auth_context` has it."""
        role = certificates.role_of(certificates.read_certificate(self.certificate, "the certificate shown"))
        return {"peer_spiffe_id": (certificates.uri(role).encode(),)}

    @classmethod
    def of(cls, service: str, settings: ServiceSettings) -> "MutualTls | None":
        """As the settings have it; None for a mesh in plain text.

        Raises:
            CertificateError: see `read`.
        """
        if not settings.mesh_key:
            return None
        return cls.read(service, Path(settings.mesh_ca), Path(settings.mesh_certificate), Path(settings.mesh_key))

    @classmethod
    def in_folder(cls, folder: Path, role: str = OPERATOR) -> "MutualTls":
        """From a folder that `tidings certs init` made.

        Raises:
            CertificateError: see `read`.
        """
        return cls.read(role, folder / AUTHORITY_FILE, *files(folder, role))

    @classmethod
    def read(cls, role: str, authority: Path, certificate: Path, key: Path) -> "MutualTls":
        """From PEM files.

        Raises:
            CertificateError: a file can't be read, the certificate is for another role or from another authority, or has ended.
        """
        try:
            found = cls(authority.read_bytes(), certificate.read_bytes(), key.read_bytes())
        except OSError as error:
            raise CertificateError(f"can't read {error.filename} ({error.strerror}): `tidings certs init` makes it") from error
        shown = certificates.read_pair(found.certificate, found.key, role).certificate
        now = datetime.datetime.now(datetime.UTC)
        certificates.check(shown, certificates.read_certificate(found.authority, str(authority)), role, now)
        if shown.not_valid_after_utc - now < _SOON:
            _log.warning("certificate ends soon; renew it with `tidings certs renew`", ends=shown.not_valid_after_utc.isoformat())
        return found

    def server(self) -> grpc.ServerCredentials:
        """For a port that takes only callers with a certificate of the same authority."""
        return grpc.ssl_server_credentials([(self.key, self.certificate)], self.authority, require_client_auth=True)

    def channel(self) -> grpc.ChannelCredentials:
        """For calling such a port."""
        return grpc.ssl_channel_credentials(self.authority, self.key, self.certificate)


class MeshDoor(grpc.aio.ServerInterceptor):
    """Lets a caller in by the role that its certificate gives, for the methods that the role may call."""

    def __init__(self, tls: MutualTls) -> None:
        self._tls = tls
        self._permissions = Permissions()

    @classmethod
    def of(cls, tls: MutualTls | None) -> "MeshDoor | None":
        """None, for whoever reaches the port, in a mesh in plain text."""
        return None if tls is None else cls(tls)

    def credentials(self) -> grpc.ServerCredentials:
        """For TLS."""
        return self._tls.server()

    def check(self, method: str, authenticated: Mapping[str, Iterable[bytes]]) -> None:
        """Let a call in.

        Args:
            method: as gRPC writes it: /package.Service/Method.
            authenticated: what TLS proved of the caller, as gRPC's `auth_context` has it.

        Raises:
            TidingsError: PERMISSION_DENIED.
        """
        # gRPC gives this key only for a certificate with exactly one SPIFFE id.
        uris = [text.decode() for text in authenticated.get("peer_spiffe_id") or ()]
        role = certificates.role_of_uri(uris[0]) if len(uris) == 1 else ""
        allowed = self._permissions.roles(method)
        if role not in allowed:
            listed = f"only {', '.join(sorted(allowed))}" if allowed else "nobody in the mesh"
            raise errors.permission_denied(f"{role or 'a certificate without a role'} may not call {method}; {listed} may")

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]], details: grpc.HandlerCallDetails
    ) -> Handler:
        """Put the check around the method."""
        handler = await continuation(details)
        return None if handler is None else around(handler, partial(self._guard, details.method))

    @asynccontextmanager
    async def _guard(self, method: str, context: Context) -> AsyncIterator[None]:
        self.check(method, context.auth_context())
        yield


def files(folder: Path, role: str) -> tuple[Path, Path]:
    """A role's certificate and key in a folder of certificates."""
    return folder / f"{role}.pem", folder / f"{role}.key"


def settings_in(folder: Path, role: str) -> dict[str, str]:
    """The settings of a service whose certificate is in a folder."""
    certificate, key = files(folder, role)
    return {"mesh_ca": str(folder / AUTHORITY_FILE), "mesh_certificate": str(certificate), "mesh_key": str(key)}
