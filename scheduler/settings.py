"""What a scheduler can be told. Flags, else `TIDINGS_SCHEDULER_<SETTING>`, else these defaults."""

from pydantic import Field, model_validator

from mesh.business import BusinessSettings
from mesh.settings import environment


class SchedulerSettings(BusinessSettings):
    """Settings of one scheduler."""

    model_config = environment("scheduler")

    port: int = Field(9092, ge=0, le=65535, description="gRPC port for businesses; 0 picks a free one")

    max_content_bytes: int = Field(16_384, ge=1, description="bytes of one encoded Content; as the edges' setting of this name")
    expire_days: float = Field(7.0, gt=0, description="when a notification expires that doesn't say, after its send time")
    max_expire_days: float = Field(30.0, gt=0, description="how long after its send time a notification may expire at most")

    claim_batch: int = Field(200, ge=1, le=500, description="notifications claimed at once; 500 of the largest stay below 16 MiB")
    claim_room: int = Field(
        1000, ge=1, description="notifications claimed that no router has been told yet; past it no more are claimed"
    )
    claim_aside: int = Field(
        20_000, ge=0, description="notifications held apart, for a router refused or didn't answer; more count in claim_room"
    )
    claim_ahead_seconds: float = Field(
        0.5, ge=0, le=5, description="how long before its time a notification is claimed, so that its router is ready; 0 for not"
    )
    lease_seconds: float = Field(10.0, gt=0, le=600, description="how long a claim lasts unless its router renews it")
    poll_seconds: float = Field(1.0, gt=0, description="how often to look for what other schedulers took in, at least")
    handover_seconds: float = Field(2.0, gt=0, description="how long a router may take to accept notifications")

    max_watches: int = Field(1000, ge=0, description="WatchNotification calls served at once; more are refused as OVERLOADED")
    watch_seconds: float = Field(0.25, gt=0, description="how often the reports that are watched are read")

    @model_validator(mode="after")
    def _order(self) -> "SchedulerSettings":
        if self.expire_days > self.max_expire_days:
            raise ValueError("expire_days is longer than max_expire_days allows")
        if self.handover_seconds >= self.lease_seconds:
            raise ValueError("handover_seconds must be shorter than lease_seconds, or a claim is lost while a router accepts it")
        if self.claim_ahead_seconds >= self.lease_seconds:
            raise ValueError("claim_ahead_seconds must be shorter than lease_seconds, or a claim is lost before it is due")
        return self
