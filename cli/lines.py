"""A log entry as people read it, and as programs do. Pure."""

import base64
from datetime import UTC, datetime
from typing import Any

from tidings.common.v1 import conversation_pb2
from tidings.common.v1.content_pb2 import Content
from tidings.common.v1.conversation_pb2 import MembershipEvent
from tidings_client import Kind, Message, Notification

_CHANGES = {
    conversation_pb2.MEMBERSHIP_CHANGE_CREATED: "created the group {name} with {whom}",
    conversation_pb2.MEMBERSHIP_CHANGE_ADDED: "added {whom}",
    conversation_pb2.MEMBERSHIP_CHANGE_REMOVED: "removed {whom}",
    conversation_pb2.MEMBERSHIP_CHANGE_LEFT: "left",
    conversation_pb2.MEMBERSHIP_CHANGE_RENAMED: "renamed the group to {name}",
    conversation_pb2.MEMBERSHIP_CHANGE_ROLE_CHANGED: "made {whom} {role}",
}


def to_json(message: Message) -> dict[str, Any]:
    """The entry as `--json` prints it.

    `kind` is message, edit, deletion, membership or unknown; `time` is UTC; what a kind doesn't have is left out.
    """
    found: dict[str, Any] = {
        "conversation_id": message.conversation_id,
        "seq": message.seq,
        "message_id": message.message_id,
        "sender_id": message.sender_id,
        "client_msg_id": message.client_msg_id,
        "time": utc(message.time),
        "kind": message.kind.value,
    }
    if message.target_seq:
        found["target_seq"] = message.target_seq
    if message.membership is not None:
        found["membership"] = _membership(message.membership)
    if message.deleted:
        found["deleted"] = True
    return found | (_content(message.content) if message.content is not None else {})


def utc(time: datetime) -> str:
    """A time as `--json` prints it, to the millisecond."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _content(content: Content) -> dict[str, Any]:
    match content.WhichOneof("body"):
        case "text":
            return {"text": content.text.text}
        case "custom":
            return {"type": content.custom.type, "data": base64.b64encode(content.custom.data).decode()}
        case _:
            return {}


def _membership(event: MembershipEvent) -> dict[str, Any]:
    change = conversation_pb2.MembershipChange.DESCRIPTOR.values_by_number.get(event.change)
    word = change.name.removeprefix("MEMBERSHIP_CHANGE_").lower() if change else "unknown"
    return {"change": word, "user_ids": list(event.user_ids), "name": event.name, "role": role(event.role)}


def role(number: int) -> str:
    """A role's word: owner, admin, member; empty when not set or newer than this program."""
    known = conversation_pb2.Role.DESCRIPTOR.values_by_number.get(number)
    return known.name.removeprefix("ROLE_").lower() if known and number else ""


def to_text(message: Message) -> str:
    """What the entry says, without who and when; one line."""
    if message.deleted:
        return "(withdrawn)"
    match message.kind:
        case Kind.MESSAGE:
            return _said(message.content) + (" (edited)" if message.edited else "")
        case Kind.EDIT:
            return f"(of {message.target_seq} now) {_said(message.content)}"
        case Kind.DELETION:
            return f"(withdrew {message.target_seq})"
        case Kind.MEMBERSHIP if message.membership is not None:
            return _membership_text(message.membership, message.sender_id)
        case _:
            return "(something newer than this program)"


def _said(content: Content | None) -> str:
    if content is not None and content.HasField("custom"):
        return f"({plain(content.custom.type)}, {len(content.custom.data)} bytes)"
    return plain(content.text.text) if content is not None else ""


def _membership_text(event: MembershipEvent, actor: str) -> str:
    known = _CHANGES.get(event.change, "changed the group")
    whom = ", ".join(user for user in event.user_ids if user != actor) or "nobody else"
    return f"({known.format(name=plain(event.name), whom=whom, role=role(event.role))})"


def plain(text: str) -> str:
    """Someone else's text, safe to print: one line, and no control character that a terminal would obey."""
    return "".join(
        letter if letter.isprintable() else " " if letter in "\r\n\t" else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def to_line(message: Message, now: datetime, label: str = "") -> str:
    """One line: when, where (when `label` is given), who, what."""
    where = f" [{plain(label)}]" if label else ""
    return f"{clock(message.time, now)}{where} {message.sender_id}: {to_text(message)}"


def notification_json(shown: Notification) -> dict[str, Any]:
    """A notification as `--json` prints it: by its `notification_id` it is told from an entry."""
    found: dict[str, Any] = {
        "notification_id": shown.notification_id,
        "kind": "notification",
        "notification_type": shown.type,
        "priority": shown.priority,
    }
    times = {"time": shown.send_time, "expire_time": shown.expire_time}
    return found | {name: utc(time) for name, time in times.items() if time is not None} | _content(shown.content)


def notification_line(shown: Notification, now: datetime) -> str:
    """One line: when it was due, what kind it is, what it says."""
    what = (
        plain(shown.text) if shown.content.HasField("text") else f"({plain(shown.content.custom.type) or 'nothing that is text'})"
    )
    return f"{clock(shown.send_time or now, now)} [{plain(shown.type)}] {what}"


def clock(time: datetime, now: datetime) -> str:
    """A time in this machine's zone; with the date when it isn't `now`'s."""
    local = time.astimezone()
    return f"{local:%H:%M:%S}" if local.date() == now.astimezone().date() else f"{local:%Y-%m-%d %H:%M:%S}"
