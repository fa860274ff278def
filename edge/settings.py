"""What an edge can be told. Every bound that protects it from its clients is here, with its reason."""

from pydantic import Field

from mesh.credentials import CredentialSettings
from mesh.settings import environment


class EdgeSettings(CredentialSettings):
    """Settings of `python -m edge`; environment names are TIDINGS_EDGE_<SETTING>."""

    model_config = environment("edge")

    port: int = Field(8081, ge=0, le=65535, description="port for clients (WebSocket, long poll, HTTP API); 0 picks a free one")
    public_url: str = Field("", description="what clients are told, for example wss://edge-1.example.com; empty derives it")
    connections_per_user: int = Field(50, ge=0, description="most connections of one user at this edge; 0 is no cap")
    capacity: int = Field(20_000, ge=1, description="connections accepted at once; the balancer weighs edges by it")
    allowed_origins: list[str] = Field(
        [], description="origins of web pages that may connect, as JSON; * allows all; a page of this very host always may"
    )
    tls_certificate: str = Field("", description="PEM file of the certificate chain; empty serves without TLS")
    tls_key: str = Field("", description="PEM file of the certificate's key")

    header_seconds: float = Field(
        10.0, gt=0, description="from accept to the end of the HTTP headers; also an idle HTTP connection"
    )
    body_seconds: float = Field(10.0, gt=0, description="from the headers to the end of an HTTP body")
    handshake_seconds: float = Field(10.0, gt=0, description="from the upgrade to Hello")
    heartbeat_seconds: float = Field(30.0, gt=0, description="how often a client is to be heard from")
    heartbeat_limit_seconds: float = Field(75.0, gt=0, description="silence after which a client is closed (two beats and a half)")
    acknowledge_seconds: float = Field(30.0, gt=0, description="unacknowledged entries are sent again from the log after this")
    poll_seconds: float = Field(25.0, gt=0, description="longest wait of one long-poll turn")

    max_frame_bytes: int = Field(131_072, ge=1024, description="bytes of one frame; holds 1,000 positions even in JSON")
    max_content_bytes: int = Field(16_384, ge=1, description="bytes of one encoded Content")
    max_sends_in_flight: int = Field(256, ge=1, description="sends of one session not yet answered")
    frames_per_second: int = Field(200, ge=1, description="frames of one session over time")
    frames_burst: int = Field(400, ge=1, description="frames of one session at once above that")
    max_watched_users: int = Field(200, ge=0, description="presences one session may watch")
    max_page_entries: int = Field(200, ge=1, le=1000, description="entries of one page; 200 of the largest stay below 4 MiB")
    api_requests_per_second: int = Field(50, ge=1, description="HTTP requests of one user over time; five times as many at once")

    outbox_bytes: int = Field(1_048_576, ge=65_536, description="bytes queued for one client; past it the client is too slow")
    outbox_frames: int = Field(4_096, ge=16, description="frames queued for one client")
    held_entries: int = Field(1_000, ge=1, description="live entries held back for one device while it catches up")
    sync_window_pages: int = Field(4, ge=1, description="pages sent to a device ahead of its acknowledgements")
    max_pending: int = Field(50_000, ge=1, description="requests of all sessions that routers have not answered")
    max_pending_bytes: int = Field(67_108_864, ge=65_536, description="bytes of those requests")
    resyncs_per_second: int = Field(1_000, ge=1, description="pace at which sessions are synced again after a link was lost")
