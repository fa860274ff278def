"""The store as one would tell it: lists and dictionaries, one thing after another. The real one is compared with it."""

from dataclasses import dataclass, field

OWNER, ADMIN, MEMBER = 1, 2, 3


@dataclass
class SimpleEntry:
    """A log entry: what it is and, unless erased, its text."""

    kind: str
    sender: str
    client_msg_id: str
    text: str = ""
    target: int = 0


@dataclass
class SimpleMember:
    """A member."""

    role: int
    visible_from: int = 1
    delivered: int = 0
    read: int = 0


@dataclass
class SimpleConversation:
    """One log and its members. Entry n of the log has seq n."""

    direct: bool
    until_delivered: bool = False
    log: list[SimpleEntry] = field(default_factory=list)
    members: dict[str, SimpleMember] = field(default_factory=dict)
    cursors: dict[tuple[str, str], int] = field(default_factory=dict)
    places: dict[tuple[str, str], int] = field(default_factory=dict)
    retained_from: int = 1
    version: int = 1

    def append(self, sender: str, client_msg_id: str, target: int, text: str) -> tuple[str, int]:
        """("stored" | "duplicate" | a refusal, seq)."""
        if (sender, client_msg_id) in self.places:
            return "duplicate", self.places[sender, client_msg_id]
        refusal = self._refusal(sender, target, text)
        if refusal:
            return refusal, 0
        kind = "content" if not target else "edit" if text else "deletion"
        self.log.append(SimpleEntry(kind, sender, client_msg_id, text, target))
        self.places[sender, client_msg_id] = len(self.log)
        if kind == "deletion":
            for seq, entry in enumerate(self.log, 1):
                if seq == target or (entry.kind == "edit" and entry.target == target):
                    entry.text = ""
        return "stored", len(self.log)

    def _refusal(self, sender: str, target: int, text: str) -> str:
        if sender not in self.members:
            return "NOT_A_MEMBER"
        if not target:
            return ""
        if not self.retained_from <= target <= len(self.log):
            return "MESSAGE_NOT_FOUND"
        entry = self.log[target - 1]
        if entry.sender != sender or entry.kind != "content":
            return "NOT_YOUR_MESSAGE"
        return "MESSAGE_NOT_FOUND" if text and not entry.text else ""

    def put(self, actor: str, member: str, role: int) -> str:
        """ "" when done or nothing to do, else the refusal."""
        refusal = self._may(actor, OWNER, ADMIN)
        if refusal:
            return refusal
        known = self.members.get(member)
        if known is not None and role in (0, known.role):
            return ""
        if (known is not None or role in (OWNER, ADMIN)) and self.members[actor].role != OWNER:
            return "PERMISSION_DENIED"
        if known is None:
            self._tell(actor)
            seq = len(self.log)
            self.members[member] = SimpleMember(role or MEMBER, seq, seq - 1, seq - 1)
            return ""
        if known.role == OWNER and self._owners() == 1:
            return "LAST_OWNER"
        known.role = role
        self._tell(actor)
        return ""

    def remove(self, actor: str, member: str) -> str:
        """As `put`."""
        known = self.members.get(member)
        if actor == member:
            if known is None:
                return ""
            if self.direct:
                return "WRONG_CONVERSATION_KIND"
            if known.role == OWNER and self._owners() == 1 and len(self.members) > 1:
                return "LAST_OWNER"
        else:
            refusal = self._may(actor, OWNER, ADMIN)
            if refusal or known is None:
                return refusal
            if known.role != MEMBER and self.members[actor].role != OWNER:
                return "PERMISSION_DENIED"
        self._tell(actor)
        del self.members[member]
        self.cursors = {key: seq for key, seq in self.cursors.items() if key[0] != member}
        return ""

    def advance(self, user: str, device: str, delivered: int, read: int) -> tuple[int, int] | str:
        """The marks now, or the refusal."""
        member = self.members.get(user)
        if member is None:
            return "NOT_A_MEMBER"
        reached = min(max(delivered, read), len(self.log))
        member.delivered = max(member.delivered, reached)
        member.read = max(member.read, min(read, len(self.log)))
        if device and reached:
            self.cursors[user, device] = max(self.cursors.get((user, device), 0), reached)
        return member.delivered, member.read

    def visible(self, user: str) -> list[int]:
        """Seqs that a member can read."""
        return list(range(max(self.members[user].visible_from, self.retained_from), len(self.log) + 1))

    def missed(self, user: str, device: str, history_limit: int) -> tuple[list[int], bool] | None:
        """Seqs that a sync brings, and whether it leaves some out; None when there is nothing to say."""
        if user not in self.members:
            return None
        cursor = self.cursors.get((user, device))
        had = max(cursor or 0, self.members[user].visible_from - 1)
        if had >= len(self.log):
            return None
        seqs = [seq for seq in self.visible(user) if seq > had]
        if cursor is None:
            seqs = seqs[max(0, len(seqs) - history_limit) :]
        return seqs, len(seqs) < len(self.log) - had

    def sweep(self) -> None:
        """What everyone has goes."""
        if self.until_delivered:
            least = min((member.delivered for member in self.members.values()), default=len(self.log))
            for seq in range(self.retained_from, least + 1):
                self.log[seq - 1].text = ""
            self.retained_from = max(self.retained_from, least + 1)

    def _may(self, actor: str, *roles: int) -> str:
        if actor not in self.members:
            return "NOT_A_MEMBER"
        if self.direct:
            return "WRONG_CONVERSATION_KIND"
        return "" if self.members[actor].role in roles else "PERMISSION_DENIED"

    def _owners(self) -> int:
        return sum(member.role == OWNER for member in self.members.values())

    def _tell(self, actor: str) -> None:
        self.log.append(SimpleEntry("membership", actor, ""))
        self.version += 1
