"""The bounds and timings of a session: one record, shared by all sessions of an edge."""

from dataclasses import dataclass

from edge.settings import EdgeSettings
from tidings.client.v1 import frames_pb2

TOKEN_WARNING_SECONDS = 60.0  # how long before its end a client is told that its token runs out
MAX_RESYNC_SECONDS = 600.0  # a client that never acknowledges is sent the same entries at most this seldom
FLOOD_FACTOR = 4  # how many times the burst a client may go on after RATE_LIMITED before it is closed
MAX_FETCHES = 64  # pages of history one session may ask for ahead of their answers
RETRY_SECONDS = 1.0  # when to try again what found no room


@dataclass(frozen=True, slots=True)
class Rules:
    """See EdgeSettings for the meaning of each; times in seconds."""

    edge_id: str
    heartbeat: float
    heartbeat_limit: float
    handshake: float
    acknowledge: float
    sync_window: int
    max_held: int
    max_held_bytes: int
    max_content_bytes: int
    max_sends_in_flight: int
    frames_per_second: float
    frames_burst: float
    max_watched: int
    max_page_entries: int
    limits: frames_pb2.Limits

    @classmethod
    def of(cls, settings: EdgeSettings, edge_id: str) -> "Rules":
        """The rules an edge was configured with."""
        return cls(
            edge_id=edge_id,
            heartbeat=settings.heartbeat_seconds,
            heartbeat_limit=settings.heartbeat_limit_seconds,
            handshake=settings.handshake_seconds,
            acknowledge=settings.acknowledge_seconds,
            sync_window=settings.sync_window_pages,
            max_held=settings.held_entries,
            max_held_bytes=settings.outbox_bytes,
            max_content_bytes=settings.max_content_bytes,
            max_sends_in_flight=settings.max_sends_in_flight,
            frames_per_second=float(settings.frames_per_second),
            frames_burst=float(settings.frames_burst),
            max_watched=settings.max_watched_users,
            max_page_entries=settings.max_page_entries,
            limits=_limits(settings),
        )


def _limits(settings: EdgeSettings) -> frames_pb2.Limits:
    return frames_pb2.Limits(
        max_frame_bytes=settings.max_frame_bytes,
        max_content_bytes=settings.max_content_bytes,
        max_sends_in_flight=settings.max_sends_in_flight,
        frames_per_second=settings.frames_per_second,
        frames_burst=settings.frames_burst,
        max_watched_users=settings.max_watched_users,
        max_page_entries=settings.max_page_entries,
    )
