"""What a router can be told. Flags, else `TIDINGS_ROUTER_<SETTING>`, else these defaults."""

from pydantic import Field

from mesh.settings import ServiceSettings, environment


class RouterSettings(ServiceSettings):
    """Settings of one router."""

    model_config = environment("router")

    port: int = Field(9093, ge=0, le=65535, description="gRPC port; 0 picks a free one")
    capacity: int = Field(0, ge=0, description="how much work it takes, relative to its siblings; 0 means unset")

    append_queue: int = Field(20_000, ge=1, description="messages waiting to be stored; when full, links are read no further")
    envelope_budget: int = Field(
        20_000, ge=1, description="envelopes that edges may have unanswered here, all together; no more than append_queue"
    )
    append_batch: int = Field(500, ge=1, le=1000, description="most messages in one append to the store")
    cached_members: int = Field(1_000_000, ge=1, description="members kept in memory, over all cached conversations")

    link_deliveries: int = Field(20_000, ge=1, description="live pushes queued per edge; past it they are dropped and resynced")
    link_bytes: int = Field(32 * 1024 * 1024, ge=1024, description="bytes of live pushes queued per edge; past it as above")

    link_broadcasts: int = Field(1000, ge=1, description="notifications queued per edge; past it they are sent again later")
    link_broadcast_bytes: int = Field(8 * 1024 * 1024, ge=1024, description="bytes of notifications queued per edge; as above")

    notification_runs: int = Field(30_000, ge=1, description="notifications under way here; past it they are refused")
    notification_bytes: int = Field(1024**3, ge=1024, description="bytes they may hold, of recipients mostly; past it as above")
    lease_seconds: float = Field(10.0, gt=0, le=3600, description="how long a notification stays ours without a word from us")
    resend_seconds: float = Field(10.0, gt=0, description="until an unacknowledged notification is sent again; doubles each time")
    resend_longest_seconds: float = Field(300.0, gt=0, description="longest time between two such resends")
    acknowledge_seconds: float = Field(0.2, gt=0, description="how often acknowledgements of notifications are written")
    acknowledged_notifications: int = Field(10_000, ge=1, description="notifications whose acknowledgements may wait")
    acknowledged_elsewhere: int = Field(2_000, ge=1, description="the same of notifications that don't run here")
    acknowledged_bytes: int = Field(64 * 1024 * 1024, ge=1024, description="bytes of acknowledgements that may wait")
    expand_seconds: float = Field(2.0, gt=0, description="how long tagsvc may take before the replica of the tags is asked")
    replicate_tags: bool = Field(True, description="keep a copy of the tags, so that audiences can be settled without tagsvc")

    history_limit: int = Field(1000, ge=1, description="entries sent at most for a conversation a device has never seen")
    page_entries: int = Field(100, ge=1, le=1000, description="entries in one page of a device's sync")
    max_page_entries: int = Field(500, ge=1, le=1000, description="entries in one page of history")
    request_seconds: float = Field(10.0, gt=0, description="how long a query may wait for a store before it is refused")

    presence_grace_seconds: float = Field(2.0, ge=0, description="how long a user may be away before they are told offline")
    max_watched_users: int = Field(200, ge=1, description="presences one session may watch")

    dispatch_seconds: float = Field(1.0, gt=0, description="how often to note what has been fanned out")
    redispatch_seconds: float = Field(30.0, gt=0, description="how often to look for entries that nobody fanned out")
    redispatch_age_seconds: float = Field(3.0, ge=0, description="how old an entry must be to count as left behind")
