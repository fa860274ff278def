"""The door for a business: notifications, tags and audiences over gRPC. It needs grpcio and grpcio-status besides the client's own.

    async with Business.connect(api_key=key) as business:
        request = UploadNotificationRequest(request_id=new_request_id(), spec=spec)
        answer = await business.notifications.UploadNotification(request)

Requests and responses are the contracts' (tidings.scheduler.v1, tidings.tag.v1). It repeats nothing by itself: on an error with
`retry_after` make the same call again, with the same request_id.
"""

import asyncio
import secrets
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc

from tidings.scheduler.v1.scheduler_pb2_grpc import NotificationServiceStub
from tidings.tag.v1.audience_pb2_grpc import AudienceServiceStub
from tidings.tag.v1.tag_pb2_grpc import TagServiceStub
from tidings_client.business_calls import BusinessChannel
from tidings_client.errors import BusinessError

__all__ = ["Business", "BusinessError", "TlsFiles", "new_request_id"]

SCHEDULER = "127.0.0.1:9092"
TAGS = "127.0.0.1:9091"
TIMEOUT = 10.0  # seconds; longer than any call takes that isn't lost, and uploads may be repeated
MAX_MESSAGE_BYTES = 16 * 1024 * 1024  # as much as the services take; 100,000 user ids of a chunk are a tenth of it
_OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 10_000),  # a peer that is gone without a word is noticed after 15 s, also by a silent stream
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.use_local_subchannel_pool", 1),
]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """TLS by PEM files.

    Attributes:
        authority: whom to trust; None for the authorities that gRPC brings along.
        certificate: our own certificate chain, where the service asks for one (mutual TLS); goes with `key`.
        key: its private key.
        server_name: the name in the service's certificate, where it isn't the one in the address.
    """

    authority: str | Path | None = None
    certificate: str | Path | None = None
    key: str | Path | None = None
    server_name: str = ""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together: give both, or neither")

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files.

        Raises:
            OSError: one can't be read.
        """
        files = (self.authority, self.key, self.certificate)
        authority, key, chain = (Path(file).read_bytes() if file is not None else None for file in files)
        return grpc.ssl_channel_credentials(authority, key, chain)


class Business:
    """A business' calls. Open it with `connect`, in the event loop that uses it, and close it.

    Every call gives `BusinessError` when it fails. A unary call takes at most 10 s unless it names another `timeout`; a stream has
    no deadline of its own.

    Attributes:
        notifications: tidings.scheduler.v1.NotificationService.
        tags: tidings.tag.v1.TagService.
        audience: tidings.tag.v1.AudienceService.
    """

    def __init__(self, scheduler: BusinessChannel, tags: BusinessChannel) -> None:
        self._channels = (scheduler, tags)
        self.notifications = NotificationServiceStub(scheduler)
        self.tags = TagServiceStub(tags)
        self.audience = AudienceServiceStub(tags)

    @classmethod
    def connect(
        cls,
        scheduler: str = SCHEDULER,
        tags: str = TAGS,
        api_key: str | None = None,
        tls: TlsFiles | None = None,
        *,
        timeout: float = TIMEOUT,
    ) -> Self:
        """Two channels, which connect with their first call and again whenever they were lost.

        Args:
            scheduler: host:port of the notifications' service.
            tags: host:port of the tags' service.
            api_key: sent with every call; empty or None for none. Without `tls` it travels readable by the network.
            tls: None for plain text.
            timeout: seconds for each unary call that names none.

        Raises:
            ValueError: the key can't be one.
            OSError: a certificate file can't be read.
        """
        metadata = (("authorization", f"Bearer {_checked(api_key)}"),) if api_key else ()
        credentials = tls.credentials() if tls is not None else None
        options = [*_OPTIONS, ("grpc.ssl_target_name_override", tls.server_name)] if tls and tls.server_name else _OPTIONS
        first, second = (
            BusinessChannel(_channel(address, credentials, options), address, metadata, timeout) for address in (scheduler, tags)
        )
        return cls(first, second)

    async def close(self) -> None:
        """End the calls under way and let go."""
        await asyncio.gather(*(channel.close() for channel in self._channels))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()


def new_request_id() -> str:
    """A request_id for a call that changes something: 128 random bits. Keep it to make the same call again."""
    return secrets.token_hex(16)


def _channel(address: str, credentials: grpc.ChannelCredentials | None, options: list[tuple[str, int | str]]) -> grpc.aio.Channel:
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, credentials, options=options)


def _checked(api_key: str) -> str:
    if not all("!" <= character <= "~" for character in api_key):
        raise ValueError("the API key has characters that no key has (a space, or the end of a line?): give it as it was made")
    return api_key
