"""What a scheduler needs from others, by role. All of it may fail with TidingsError."""

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, Protocol

from pyroaring import BitMap

from tidings.common.v1.notification_pb2 import Outcome
from tidings.store.v1 import notification_pb2 as store
from tidings.tag.v1.audience_pb2 import ValidateExpressionResponse


class NotificationStore(Protocol):
    """Where notifications are kept; the truth about them."""

    async def create(self, request: store.CreateNotificationRequest) -> store.CreateNotificationResponse:
        """Store an upload, or the next occurrence of a series."""

    async def find_request(self, request: store.FindRequestRequest) -> store.FindRequestResponse:
        """What a request_id was answered before; fails as it was refused before."""

    async def refuse_request(self, request: store.RefuseRequestRequest) -> store.RefuseRequestResponse:
        """Refuse a request_id for good, or say what it was answered before; fails as it was refused before."""

    async def get(self, request: store.GetNotificationsRequest) -> store.GetNotificationsResponse:
        """Notifications by id."""

    async def list(self, request: store.ListNotificationsRequest) -> store.ListNotificationsResponse:
        """A page."""

    async def control(self, request: store.ControlNotificationRequest) -> store.ControlNotificationResponse:
        """Cancel, pause, resume, reprioritise, reschedule."""

    async def claim(self, request: store.ClaimNotificationsRequest) -> store.ClaimNotificationsResponse:
        """Take what is due."""

    async def release(self, request: store.ReleaseNotificationsRequest) -> store.ReleaseNotificationsResponse:
        """Give claims up."""

    async def save_progress(self, request: store.SaveProgressRequest) -> store.SaveProgressResponse:
        """Write under claims."""

    def recipients(self, notification_id: str, outcome: Outcome.ValueType) -> AsyncIterator[BitMap]:
        """Ordinals with one outcome, chunk by chunk, ascending."""


class Users(Protocol):
    """The directory of users; lists may have any length."""

    async def ensure(self, user_ids: Sequence[str]) -> BitMap:
        """The ordinals of these users; those never seen come into being."""

    async def find(self, user_ids: Sequence[str]) -> dict[str, int]:
        """The ordinals of those of them who exist."""

    async def ids(self, ordinals: Sequence[int]) -> Sequence[str]:
        """Their ids, in order."""


class Expansion(NamedTuple):
    """Everybody whom an expression meant, in which snapshot of the tags, and how many clients were known then."""

    members: BitMap
    version: int
    known: int


class Tags(Protocol):
    """Who is meant by an expression."""

    async def validate(self, expression: str) -> ValidateExpressionResponse:
        """Read it; fails with what is wrong."""

    async def expand(self, expression: str, version: int) -> Expansion:
        """Everybody meant; version 0 asks for the newest."""

    async def known_clients(self) -> int:
        """How many clients there are."""


class Router(Protocol):
    """One router."""

    @property
    def router_id(self) -> str:
        """Its instance id."""

    async def start(self, claims: Sequence[store.Claim]) -> set[str]:
        """Hand notifications over, in order; gives the ids of those it refused. When it fails, it may have taken some or all."""

    async def left(self) -> None:
        """Wait until it leaves, or is gone."""

    async def refresh(self, notification_ids: Sequence[str]) -> None:
        """Say that something of these changed."""


class Routers(Protocol):
    """Those that are up."""

    def owner(self, notification_id: str) -> Router:
        """The one that runs a notification; UNAVAILABLE when there is none."""
