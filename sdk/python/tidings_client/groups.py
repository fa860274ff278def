"""The part of the client that is about who is in which conversation, over the HTTP API."""

from collections.abc import Iterable

from tidings.common.v1 import conversation_pb2
from tidings.common.v1.conversation_pb2 import Conversation, Retention
from tidings_client.http_api import HttpApi
from tidings_client.naming import new_client_msg_id


class Groups:
    """Mixed into `Client`. Every method raises RequestFailed when the server refuses and NotConnected when it can't be reached."""

    def _api(self) -> HttpApi:
        raise NotImplementedError

    async def create_group(
        self, name: str, members: Iterable[str], *, request_id: str | None = None, retention: Retention | None = None
    ) -> Conversation:
        """Open a group with these members besides oneself.

        Args:
            request_id: the same one with the same group gives the same conversation; made when not given.
            retention: what is kept; for ever when not given.
        """
        return await self._api().create_group(request_id or new_client_msg_id(), name, list(members), retention)

    async def conversations(self) -> list[Conversation]:
        """All the user's conversations, the most recently active first."""
        return await self._api().list()

    async def conversation(self, conversation_id: str) -> Conversation:
        """One conversation with its members and how far they have read."""
        return await self._api().get(conversation_id)

    async def add_member(
        self, conversation_id: str, user_id: str, role: conversation_pb2.Role.ValueType = conversation_pb2.ROLE_MEMBER
    ) -> Conversation:
        """Add a member, or change their role."""
        return await self._api().put_member(conversation_id, user_id, role)

    async def remove_member(self, conversation_id: str, user_id: str) -> Conversation:
        """Remove a member."""
        return await self._api().delete_member(conversation_id, user_id)

    async def leave(self, conversation_id: str) -> Conversation:
        """Leave a group."""
        return await self._api().delete_member(conversation_id, self.user_id)

    async def rename(self, conversation_id: str, name: str) -> Conversation:
        """Give a group another name."""
        return await self._api().update(conversation_id, name, None)

    async def set_retention(self, conversation_id: str, retention: Retention) -> Conversation:
        """Change what a group keeps."""
        return await self._api().update(conversation_id, "", retention)

    @property
    def user_id(self) -> str:
        """Who we are."""
        raise NotImplementedError
