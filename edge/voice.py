"""How a session speaks to the routers: signed with who asks, and kept back until the user's ordinal is known. Pure."""

from collections.abc import Collection

from edge.ports import Expects, MeshPort
from edge.requests import MAX_NOTIFICATIONS, MAX_POSITIONS
from edge.rules import MAX_FETCHES, RETRY_SECONDS
from mesh import errors
from tidings.router.v1 import link_pb2

Request = tuple[str, link_pb2.ClientEnvelope, Expects]


class Early:
    """What was said before the ordinal was known: requests in order, the highest marks, and notifications the device has.

    Sends are bounded by the session's admission; past MAX_FETCHES of anything else more is refused OVERLOADED.
    """

    def __init__(self) -> None:
        self._others = 0
        self.requests: list[Request] = []
        self.marks: dict[str, tuple[int, int]] = {}
        self.notifications: set[str] = set()

    def ask(self, request: Request) -> None:
        """Keep a request.

        Raises:
            TidingsError: OVERLOADED.
        """
        self._others += request[2] is not Expects.STORED
        if self._others > MAX_FETCHES:
            raise errors.overloaded(RETRY_SECONDS, "a session that is still opening")
        self.requests.append(request)

    def mark(self, conversation_id: str, delivered: int, read: int) -> None:
        """Keep a mark; past 1,000 conversations new ones are lost, and the client is sent those entries again."""
        old = self.marks.get(conversation_id, (0, 0))
        if conversation_id in self.marks or len(self.marks) < MAX_POSITIONS:
            self.marks[conversation_id] = (max(delivered, old[0]), max(read, old[1]))

    def acknowledge_notifications(self, notification_ids: Collection[str]) -> None:
        """Keep acknowledgements; past 1,000 more are lost, and the client is sent those notifications again."""
        for notification_id in notification_ids:
            if len(self.notifications) < MAX_NOTIFICATIONS:
                self.notifications.add(notification_id)


class Voice:
    """One session's requests.

    Attributes:
        number: the edge's own number of the session.
        user_id, device_id: who asks; the device is empty before Hello.
        ordinal: the user's dense number; 0 until known.
    """

    __slots__ = ("_early", "_mesh", "device_id", "number", "ordinal", "user_id")

    def __init__(self, number: int, user_id: str, mesh: MeshPort) -> None:
        self.number = number
        self.user_id = user_id
        self.device_id = ""
        self.ordinal = 0
        self._mesh = mesh
        self._early: Early | None = None

    @property
    def has_room(self) -> bool:
        """See MeshPort."""
        return self._mesh.has_room

    def open(self) -> None:
        """Ask for the ordinal."""
        opening = link_pb2.ClientEnvelope(open_session=link_pb2.OpenSession(device_id=self.device_id))
        self._mesh.ask(self.number, self.user_id, self._signed(opening), Expects.OPENED)

    def opened(self, ordinal: int) -> None:
        """The ordinal is known: say what was kept back."""
        self.ordinal = ordinal
        early, self._early = self._early, None
        if early is None:
            return
        for request in early.requests:
            self.ask(*request)
        for conversation_id, (delivered, read) in early.marks.items():
            self.mark(conversation_id, delivered, read)
        if early.notifications:
            self.acknowledge_notifications(early.notifications)

    def ask(self, key: str, envelope: link_pb2.ClientEnvelope, expects: Expects) -> None:
        """Put a request to the owner of `key`.

        Raises:
            TidingsError: OVERLOADED, when too much is kept back already.
        """
        if self.ordinal:
            self._mesh.ask(self.number, key, self._signed(envelope), expects)
        else:
            self._kept().ask((key, envelope, expects))

    def tell(self, key: str, envelope: link_pb2.ClientEnvelope) -> None:
        """Say what nobody answers; before the ordinal is known it is not worth keeping."""
        if self.ordinal:
            self._mesh.tell(key, self._signed(envelope))

    def mark(self, conversation_id: str, delivered: int, read: int) -> None:
        """Move marks."""
        if not self.ordinal:
            self._kept().mark(conversation_id, delivered, read)
            return
        mark = link_pb2.ReceiptDelta(
            user_ordinal=self.ordinal,
            user_id=self.user_id,
            device_id=self.device_id,
            conversation_id=conversation_id,
            delivered_seq=delivered,
            read_seq=read,
        )
        self._mesh.mark(self.number, mark)

    def acknowledge_notifications(self, notification_ids: Collection[str]) -> None:
        """The device has these."""
        if self.ordinal:
            self._mesh.acknowledge_notifications(notification_ids, self.ordinal)
        else:
            self._kept().acknowledge_notifications(notification_ids)

    def _signed(self, envelope: link_pb2.ClientEnvelope) -> link_pb2.ClientEnvelope:
        envelope.session = self.number
        envelope.user_ordinal = self.ordinal
        envelope.user_id = self.user_id
        return envelope

    def _kept(self) -> Early:
        if self._early is None:
            self._early = Early()
        return self._early
