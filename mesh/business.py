"""The door for businesses: from which networks a service may be called, with which keys, over which TLS.

Every call is checked, of whatever method. Without settings only this machine may call, without a key, in plain text.
"""

import hashlib
import hmac
import ipaddress
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import unquote

import grpc
from pydantic import Field, field_validator, model_validator

from mesh import errors
from mesh.handlers import Context, Handler, around
from mesh.settings import ServiceSettings

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TLS_FILES = ("tls_certificate", "tls_key", "tls_client_ca")


class BusinessSettings(ServiceSettings):
    """How a service that faces businesses checks them."""

    allowed_networks: list[str] = Field(
        ["127.0.0.0/8", "::1/128"], description="networks that may call, such as 10.0.0.0/8; others are refused"
    )
    api_keys: dict[str, str] = Field(
        {},
        description="name of a caller -> SHA-256 of its key in hexadecimal; empty asks for none. Keys come as bearer tokens",
    )
    tls_certificate: str = Field("", description="PEM file of the certificate chain to serve with; empty serves plain text")
    tls_key: str = Field("", description="PEM file of its private key")
    tls_client_ca: str = Field("", description="PEM file of the authority that callers' certificates are from; empty asks for none")

    @field_validator("allowed_networks")
    @classmethod
    def _networks(cls, texts: list[str]) -> list[str]:
        for text in texts:
            ipaddress.ip_network(text)
        return texts

    @field_validator("api_keys")
    @classmethod
    def _digests(cls, digests: dict[str, str]) -> dict[str, str]:
        for name, digest in digests.items():
            if not _DIGEST.fullmatch(digest):
                raise ValueError(f"{name}: give the SHA-256 of the key, as `printf %s KEY | sha256sum` prints it")
        return digests

    @model_validator(mode="after")
    def _tls(self) -> "BusinessSettings":
        if bool(self.tls_certificate) != bool(self.tls_key) or (self.tls_client_ca and not self.tls_key):
            raise ValueError("tls_certificate and tls_key go together, and tls_client_ca needs both")
        for name in _TLS_FILES:
            if getattr(self, name) and not Path(getattr(self, name)).is_file():
                raise ValueError(f"{name}: there is no file {getattr(self, name)}")
        return self


class BusinessDoor(grpc.aio.ServerInterceptor):
    """Checks every call to a server before its method sees it."""

    def __init__(self, settings: BusinessSettings) -> None:
        self._settings = settings
        self._networks: Sequence[Network] = [ipaddress.ip_network(text) for text in settings.allowed_networks]
        self._digests = [bytes.fromhex(digest) for digest in settings.api_keys.values()]

    def credentials(self) -> grpc.ServerCredentials | None:
        """For TLS; None to serve in plain text."""
        if not self._settings.tls_key:
            return None
        key, chain = Path(self._settings.tls_key).read_bytes(), Path(self._settings.tls_certificate).read_bytes()
        roots = Path(self._settings.tls_client_ca).read_bytes() if self._settings.tls_client_ca else None
        return grpc.ssl_server_credentials([(key, chain)], roots, require_client_auth=roots is not None)

    def check(self, peer: str, metadata: Mapping[str, str]) -> None:
        """Let a call in.

        Args:
            peer: as gRPC writes it, for example "ipv4:127.0.0.1:4711".
            metadata: the call's.

        Raises:
            TidingsError: NETWORK_REFUSED or UNAUTHENTICATED.
        """
        address = _address(peer)
        if address is None or not any(address in network for network in self._networks):
            raise errors.network_refused(str(address or peer))
        if self._digests:
            scheme, _, key = metadata.get("authorization", "").partition(" ")
            digest = hashlib.sha256(key.strip().encode()).digest()
            # Each of them is compared, and all in the same time, so that nothing is learnt from how long it takes.
            matches = [hmac.compare_digest(digest, known) for known in self._digests]
            if scheme.lower() != "bearer" or not any(matches):
                raise errors.unauthenticated("no valid API key", "send one as metadata `authorization: Bearer KEY`")

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]], details: grpc.HandlerCallDetails
    ) -> Handler:
        """Put the check around the method."""
        handler = await continuation(details)
        return None if handler is None else around(handler, self._guard)

    @asynccontextmanager
    async def _guard(self, context: Context) -> AsyncIterator[None]:
        metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        self.check(context.peer(), metadata)
        yield


def _address(peer: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The caller's address; None when it is no IP address, such as a Unix socket's."""
    kind, _, rest = unquote(peer).partition(":")
    if kind not in ("ipv4", "ipv6"):
        return None
    text = rest.rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
