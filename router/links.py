"""The links there are, and what arrives on them: the roster's changes first, then what clients asked, by kind.

Rules: a request that can't be handled is answered INTERNAL and logged; it harms neither its batch nor its link. An edge that opens
a second link has lost its first: the older one ends.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping

import structlog
from pyroaring import BitMap

from mesh import errors
from router.link import EdgeLink
from router.notification_acks import NotificationAcks
from router.notification_table import RunTable
from router.presence_notices import PresenceNotices
from router.receipts import Receipts
from router.roster import Roster
from tidings.router.v1.link_pb2 import ClientEnvelope, EdgeBatch, OnlineSnapshot

Accept = Callable[[EdgeLink, ClientEnvelope], Awaitable[None]]
_log = structlog.get_logger(__name__)


class Links:
    """Every edge's link.

    Args:
        kinds: arm of ClientEnvelope.body -> who takes it.
    """

    def __init__(
        self,
        roster: Roster[EdgeLink],
        presence: PresenceNotices,
        receipts: Receipts,
        runs: RunTable,
        acknowledgements: NotificationAcks,
        kinds: Mapping[str, Accept],
    ) -> None:
        self._roster = roster
        self._presence = presence
        self._receipts = receipts
        self._runs = runs
        self._acknowledgements = acknowledgements
        self._kinds = kinds
        self._links: dict[str, EdgeLink] = {}

    def __iter__(self) -> Iterator[EdgeLink]:
        return iter(list(self._links.values()))

    def __len__(self) -> int:
        return len(self._links)

    def enter(self, link: EdgeLink, snapshot: OnlineSnapshot) -> None:
        """A new link, with everyone online at its edge.

        Raises:
            TidingsError: INVALID_FIELD when the bitmap can't be read.
        """
        try:
            online = BitMap.deserialize(snapshot.user_ordinals) if snapshot.user_ordinals else BitMap()
        except ValueError:
            raise errors.invalid_field("online_snapshot.user_ordinals", "a roaring bitmap in portable serialisation") from None
        before = self._links.get(link.edge_id)
        self._links[link.edge_id] = link
        transition = self._roster.snapshot(link, online)
        self._presence.came(transition.came)
        self._runs.came(online)  # all of them: what went to an older link of theirs may not have arrived
        if before is not None:
            self._end(before)
            before.close()

    def leave(self, link: EdgeLink) -> None:
        """The link ended."""
        if self._links.get(link.edge_id) is link:
            del self._links[link.edge_id]
        self._end(link)

    def _end(self, link: EdgeLink) -> None:
        link.end()
        self._presence.forget_link(link)
        self._presence.went(self._roster.gone(link))

    async def on_batch(self, link: EdgeLink, sequence: int, batch: EdgeBatch) -> None:
        """Act on what an edge sent: the roster's changes, what the store is to be told, and then, in order, what was asked.

        What is told has been taken before the edge hears that, for it keeps no copy afterwards. Only receipts for which there is
        no room yet are taken later when sessions opened, which wait for that word.
        """
        if link.gone:
            return  # the edge has a newer link, on which it says all this again
        if batch.opened_user_ordinals:
            self._presence.came(self._roster.opened(link, batch.opened_user_ordinals))
            self._runs.came(BitMap(batch.opened_user_ordinals))
        if batch.closed_user_ordinals:
            self._presence.went(self._roster.closed(link, batch.closed_user_ordinals))
        if batch.notification_acknowledgements:
            self._acknowledgements.accept(link.edge_id, batch.notification_acknowledgements)
        hurried = bool(batch.opened_user_ordinals) and not self._receipts.room_for(len(batch.receipts))
        if batch.receipts and not hurried:
            await self._receipts.accept(batch.receipts)
        # Answers tell it, too, and follow soon.
        link.received(sequence, tell_now=not batch.envelopes and (bool(batch.opened_user_ordinals) or not batch.receipts))
        if batch.closed_sessions:
            await self._presence.closed(link, batch.closed_sessions)
        for envelope in batch.envelopes:
            await self._on_envelope(link, envelope)
        if hurried:
            await self._receipts.accept(batch.receipts)

    async def _on_envelope(self, link: EdgeLink, envelope: ClientEnvelope) -> None:
        kind = envelope.WhichOneof("body")
        accept = self._kinds.get(kind or "")
        try:
            if accept is None:
                link.refuse(envelope, errors.unknown_request("this kind of envelope"))
            elif not envelope.user_ordinal and kind != "open_session":
                link.refuse(envelope, errors.invalid_field("user_ordinal", "open the session first"))  # 0 would ask as the mesh
            else:
                await accept(link, envelope)
        except errors.TidingsError as error:
            link.refuse(envelope, error)
        except Exception:
            _log.exception("envelope failed", kind=kind, edge=link.edge_id)
            link.refuse(envelope, errors.internal("an unforeseen fault"))
