"""Deleting what may still be named by something: an alias, a combination, or a notification that isn't over."""

from tagsvc import fields
from tagsvc.changes import Delete, check_there
from tagsvc.journal import Journal
from tagsvc.ports import Notifications
from tagsvc.writer import Writer
from tidings.tag.v1 import tag_pb2 as pb

_Request = pb.DeleteTagRequest | pb.DeleteAliasRequest | pb.DeleteCombinationRequest


class Deletions:
    """Deletes tags, aliases and combinations."""

    def __init__(self, journal: Journal, writer: Writer, notifications: Notifications) -> None:
        self._journal = journal
        self._writer = writer
        self._notifications = notifications

    async def delete(self, kind: str, request: _Request) -> int:
        """Delete a "tag", an "alias" or a "combination"; gives the version of the snapshot without it.

        Raises:
            TidingsError: UNKNOWN_TAG, NAME_IN_USE, REQUEST_ID_CONFLICT, UNAVAILABLE, OVERLOADED.
        """
        request_id, name = fields.request_id(request.request_id), fields.name("name", request.name)
        references = None
        if not self._writer.carried_out(request_id):
            check_there(kind, name, self._journal.newest())
            if not request.force:
                references = await self._notifications.references([f"@{name}" if kind == "alias" else name])
        change = Delete(kind, name, references, request_id, fields.request_digest(request))
        return (await self._writer.change(change)).version
