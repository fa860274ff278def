"""What the router needs from others, by role.

The store's own messages pass through these ports: they are a contract, and copying them on the hot path would cost more than it
clarifies. Every method raises `TidingsError`; UNAVAILABLE means that no store answered and the same call may be made again.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from tidings.store.v1 import conversation_pb2 as conversations
from tidings.store.v1 import dead_letter_pb2 as letters
from tidings.store.v1 import message_log_pb2 as log
from tidings.store.v1 import notification_pb2 as notifications
from tidings.store.v1 import user_pb2 as users
from tidings.tag.v1 import audience_pb2 as audience


class MessageLog(Protocol):
    """The logs of conversations, the cursors of devices, the marks of members."""

    async def list_entries(self, request: log.ListEntriesRequest) -> log.ListEntriesResponse:
        """A page of one log."""

    async def sync_devices(self, request: log.SyncDevicesRequest) -> log.SyncDevicesResponse:
        """A page of what each device missed."""

    async def advance_marks(self, request: log.AdvanceMarksRequest) -> log.AdvanceMarksResponse:
        """Move marks forward; what is answered is durable."""

    async def list_undispatched(self, request: log.ListUndispatchedRequest) -> log.ListUndispatchedResponse:
        """Conversations whose newest entries may not have been fanned out."""

    async def mark_dispatched(self, request: log.MarkDispatchedRequest) -> log.MarkDispatchedResponse:
        """Say what has been fanned out."""


class DeadLetterStore(Protocol):
    """Work that was put aside."""

    async def put_dead_letters(self, request: letters.PutDeadLettersRequest) -> letters.PutDeadLettersResponse:
        """Keep some."""

    async def list_dead_letters(self, request: letters.ListDeadLettersRequest) -> letters.ListDeadLettersResponse:
        """A page of them."""

    async def discard_dead_letter(self, request: letters.DiscardDeadLetterRequest) -> letters.DiscardDeadLetterResponse:
        """Forget one."""


class Appender(Protocol):
    """The way into the log."""

    async def room(self, entries: int) -> None:
        """Wait until it is time to submit a batch of so many: a small one would only hurry ahead of what could go with it."""

    async def submit(self, entries: list[log.NewEntry]) -> "asyncio.Future[list[log.AppendResult]]":
        """Hand over a batch, waiting for room; the future gives one result per entry, once they are durable.

        Batches are stored in the order of their submission. A store that fails is retried for ever, so the future fails only
        with INTERNAL, when the stores keep refusing this very batch.
        """


class ConversationStore(Protocol):
    """Conversations, members, roles."""

    async def ensure_direct(self, request: conversations.EnsureDirectRequest) -> conversations.EnsureDirectResponse:
        """Make direct conversations exist."""

    async def create_group(self, request: conversations.CreateGroupRequest) -> conversations.CreateGroupResponse:
        """Create a group."""

    async def get_conversations(self, request: conversations.GetConversationsRequest) -> conversations.GetConversationsResponse:
        """Conversations with their members."""

    async def list_conversations(self, request: conversations.ListConversationsRequest) -> conversations.ListConversationsResponse:
        """A user's conversations."""

    async def update_conversation(
        self, request: conversations.UpdateConversationRequest
    ) -> conversations.UpdateConversationResponse:
        """Rename a group or change retention."""

    async def put_member(self, request: conversations.PutMemberRequest) -> conversations.PutMemberResponse:
        """Add a member or change a role."""

    async def remove_member(self, request: conversations.RemoveMemberRequest) -> conversations.RemoveMemberResponse:
        """Remove a member."""


class UserStore(Protocol):
    """The directory of users."""

    async def ensure_users(self, request: users.EnsureUsersRequest) -> users.EnsureUsersResponse:
        """Users by id; new ones come into being."""

    async def get_users(self, request: users.GetUsersRequest) -> users.GetUsersResponse:
        """Users by id, without creating any."""

    async def record_last_seen(self, request: users.RecordLastSeenRequest) -> users.RecordLastSeenResponse:
        """Note when users were last online."""


class NotificationStore(Protocol):
    """Notifications and who their recipients are."""

    async def get_notifications(self, request: notifications.GetNotificationsRequest) -> notifications.GetNotificationsResponse:
        """Notifications by id."""

    async def save_expansion(self, request: notifications.SaveExpansionRequest) -> notifications.SaveExpansionResponse:
        """Store whom one is for."""

    async def save_progress(self, request: notifications.SaveProgressRequest) -> notifications.SaveProgressResponse:
        """Store whom some are about to go to, and keep them."""

    async def record_delivered(self, request: notifications.RecordDeliveredRequest) -> notifications.RecordDeliveredResponse:
        """Store who has some."""

    async def release_notifications(
        self, request: notifications.ReleaseNotificationsRequest
    ) -> notifications.ReleaseNotificationsResponse:
        """Give some up."""

    def read_recipients(self, request: notifications.ReadRecipientsRequest) -> AsyncIterator[notifications.ReadRecipientsResponse]:
        """The recipients of one, in chunks."""


class AudienceService(Protocol):
    """Who has which tags."""

    def expand_expression(
        self, request: audience.ExpandExpressionRequest, timeout: float
    ) -> AsyncIterator[audience.ExpandExpressionResponse]:
        """Everybody an expression means, in chunks."""

    def watch_snapshots(self, request: audience.WatchSnapshotsRequest) -> AsyncIterator[audience.WatchSnapshotsResponse]:
        """Each new snapshot, until cut."""
