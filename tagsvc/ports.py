"""The ports: what tagsvc wants of the store. `grpc_store.GrpcStore` implements them."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from typing import Protocol

from tidings.common.v1.notification_pb2 import Outcome
from tidings.store.v1 import tag_log_pb2 as log
from tidings.store.v1 import user_pb2 as users


class TagLog(Protocol):
    """The log of changes. All raise TidingsError: UNAVAILABLE when no store answers, and what is said at each."""

    async def append(self, expected_version: int, records: Sequence[bytes]) -> log.AppendRecordsResponse:
        """Add records, all or none. After UNAVAILABLE they may be there, or still come to be."""

    def follow(self, after_version: int) -> AsyncGenerator[log.FollowRecordsResponse, None]:
        """Records after a version, for ever; the first response at once. SNAPSHOT_GONE when they aren't kept."""

    def load_checkpoint(self) -> AsyncIterator[log.LoadCheckpointResponse]:
        """The newest checkpoint in parts; nothing when there is none."""

    async def save_checkpoint(self, version: int, parts: Iterable[bytes]) -> bool:
        """Keep a checkpoint; False when a newer one was there. `parts` is taken from as the store takes them."""


class UserDirectory(Protocol):
    """Users and their ordinals, at most 1,000 a call."""

    async def ensure_users(self, user_ids: Sequence[str]) -> Sequence[users.User]:
        """One per id, in order; new ones come into being."""

    async def get_users(self, user_ids: Sequence[str]) -> Sequence[users.User]:
        """Those that exist."""

    async def list_users(self, ordinals: Sequence[int]) -> Sequence[users.User]:
        """Those that exist, in the order asked for."""


class Notifications(Protocol):
    """What is asked about notifications."""

    def recipients(self, notification_id: str, outcomes: Sequence[Outcome.ValueType]) -> AsyncGenerator[Sequence[bytes], None]:
        """Chunks of bitmaps, one per outcome. NOTIFICATION_NOT_FOUND, REPORT_GONE."""

    async def references(self, names: Sequence[str]) -> Sequence[str]:
        """Ids of notifications that aren't over and name one of these."""
