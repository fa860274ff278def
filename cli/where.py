"""Which conversation a word on the command line names.

dabc… or gabc…   its id
user:NAME        the direct conversation with that user
group:NAME       one's own group of that name
NAME             one's own group of that name, unless one has talked with a user of that name; otherwise that user
"""

from dataclasses import dataclass

from cli.api import Api
from cli.failure import CommandError
from mesh import naming
from tidings.client.v1 import http_pb2
from tidings.common.v1 import conversation_pb2
from tidings.common.v1.conversation_pb2 import Conversation

PAGE = 100
_USER, _GROUP = "user:", "group:"


@dataclass(frozen=True, slots=True)
class Where:
    """A conversation, and what people call it."""

    conversation_id: str
    label: str
    other: str = ""
    """The other user of a direct conversation; empty for a group, and when only the id is known."""


async def conversations(api: Api) -> list[Conversation]:
    """All of the caller's conversations, the most recently active first."""
    found: list[Conversation] = []
    token = ""
    while True:
        query = {"limit": str(PAGE), "page_token": token}
        page = await api.call("GET", "/api/v1/chats", http_pb2.ListChatsResponse, query=query)
        found += page.conversations
        token = page.next_page_token
        if not token:
            return found


async def find(api: Api, me: str, word: str) -> Where:
    """The conversation that `word` names. See the module.

    Raises:
        CommandError: it names none, or more than one.
    """
    if naming.CONVERSATION_ID.fullmatch(word):
        return Where(word, word)
    if word.startswith(_USER):
        return direct(me, word.removeprefix(_USER))
    return pick(me, word, await conversations(api))


def pick(me: str, word: str, mine: list[Conversation]) -> Where:
    """The group or the user a name means, given all one's conversations."""
    name = word.removeprefix(_GROUP)
    groups = [one for one in mine if one.kind == conversation_pb2.CONVERSATION_KIND_GROUP and one.name == name]
    talked = any(one.kind == conversation_pb2.CONVERSATION_KIND_DIRECT and name in _members(one) for one in mine) and name != me
    if len(groups) > 1:
        ids = ", ".join(group.conversation_id for group in groups)
        raise CommandError(f"you have {len(groups)} groups named {name!r}", f"name one by its id: {ids}")
    if groups and talked and name == word:
        raise CommandError(f"{name!r} is a user and a group of yours", f"say {_USER}{name} or {_GROUP}{name}")
    if groups:
        return Where(groups[0].conversation_id, name)
    if word.startswith(_GROUP) or not naming.USER_ID.fullmatch(name):
        raise CommandError(f"you have no group named {name!r}", "`tidings group list` shows those you have")
    return direct(me, name)


def direct(me: str, other: str) -> Where:
    """The direct conversation between two users."""
    if not naming.USER_ID.fullmatch(other):
        raise CommandError(f"{other!r} is not a user id", "one is 1-128 characters of A-Z a-z 0-9 . _ @ + -")
    if other == me:
        raise CommandError(f"{me} can't talk with themselves", "name another user, or a group")
    return Where(naming.direct_conversation_id(me, other), other, other)


def _members(conversation: Conversation) -> set[str]:
    return {member.user_id for member in conversation.members}
