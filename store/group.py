"""What may be changed in a conversation, by whom: pure. A `Change` says what became different; None that nothing did.

Direct conversations have their two members for ever; only their retention changes. In a group an owner may do everything, an admin
adds and removes plain members and renames, a member leaves. As long as a group has members it has an owner.
"""

from dataclasses import dataclass
from enum import IntEnum

from mesh import errors
from store.model import Conversation, ConversationKind, Member, Role

MAX_MEMBERS = 5_000  # fan-out of a message names every member; more than this is an audience, which tags are for


class ChangeKind(IntEnum):
    """As MembershipChange in the contract."""

    CREATED = 1
    ADDED = 2
    REMOVED = 3
    LEFT = 4
    RENAMED = 5
    ROLE_CHANGED = 6


@dataclass(frozen=True, slots=True)
class Change:
    """A change that gets an entry in the log.

    Attributes:
        user_ids: whom it concerns.
        role: the new role, when members come or their role changes.
        name: the name now, when it was created or renamed.
    """

    kind: ChangeKind
    user_ids: tuple[str, ...] = ()
    role: Role | None = None
    name: str = ""


def put_member(group: Conversation, actor_id: str, member_id: str, role: Role | None) -> Change | None:
    """Add a member, or change their role; without a role an existing member stays as they are.

    Raises:
        TidingsError: NOT_A_MEMBER, WRONG_CONVERSATION_KIND, PERMISSION_DENIED, GROUP_TOO_LARGE, LAST_OWNER.
    """
    actor = _actor_of_group(group, actor_id)
    _need(actor, Role.OWNER, Role.ADMIN)
    member = group.member(member_id)
    if member is None:
        return _add(group, actor, member_id, role or Role.MEMBER)
    if role is None or role is member.role:
        return None
    _need(actor, Role.OWNER)
    if member.role is Role.OWNER:
        _need_another_owner(group, member)
    return Change(ChangeKind.ROLE_CHANGED, (member_id,), role)


def remove_member(group: Conversation, actor_id: str, member_id: str) -> Change | None:
    """Remove a member, or leave. Somebody who is not there is not removed, whoever asks for themselves.

    Raises:
        TidingsError: as `put_member`.
    """
    member = group.member(member_id)
    if actor_id == member_id:
        return None if member is None else _leave(group, member)
    actor = _actor_of_group(group, actor_id)
    _need(actor, Role.OWNER, Role.ADMIN)
    if member is None:
        return None
    if member.role is not Role.MEMBER:
        _need(actor, Role.OWNER)
    return Change(ChangeKind.REMOVED, (member_id,))


def rename(group: Conversation, actor_id: str, name: str) -> Change | None:
    """Give a group another name.

    Raises:
        TidingsError: as `put_member`.
    """
    _need(_actor_of_group(group, actor_id), Role.OWNER, Role.ADMIN)
    return None if name == group.name else Change(ChangeKind.RENAMED, name=name)


def check_retention_change(conversation: Conversation, actor_id: str) -> None:
    """Either side of a direct conversation may change what it keeps; of a group, owners and admins.

    Raises:
        TidingsError: NOT_A_MEMBER, PERMISSION_DENIED.
    """
    actor = _actor(conversation, actor_id)
    if conversation.kind is ConversationKind.GROUP:
        _need(actor, Role.OWNER, Role.ADMIN)


def _add(group: Conversation, actor: Member, member_id: str, role: Role) -> Change:
    if role is not Role.MEMBER:
        _need(actor, Role.OWNER)
    if len(group.members) >= MAX_MEMBERS:
        raise errors.group_too_large(MAX_MEMBERS)
    return Change(ChangeKind.ADDED, (member_id,), role)


def _leave(group: Conversation, member: Member) -> Change:
    _need_group(group)
    if member.role is Role.OWNER and len(group.members) > 1:
        _need_another_owner(group, member)
    return Change(ChangeKind.LEFT, (member.user_id,))


def _actor_of_group(group: Conversation, actor_id: str) -> Member:
    actor = _actor(group, actor_id)
    _need_group(group)
    return actor


def _actor(conversation: Conversation, actor_id: str) -> Member:
    actor = conversation.member(actor_id)
    if actor is None:
        raise errors.not_a_member(conversation.conversation_id)
    return actor


def _need_group(conversation: Conversation) -> None:
    if conversation.kind is not ConversationKind.GROUP:
        raise errors.wrong_conversation_kind(conversation.conversation_id)


def _need(actor: Member, *roles: Role) -> None:
    if actor.role not in roles:
        raise errors.permission_denied(" or ".join(role.name.lower() for role in roles) + " needed")


def _need_another_owner(group: Conversation, owner: Member) -> None:
    if not any(member.role is Role.OWNER and member is not owner for member in group.members):
        raise errors.last_owner()
