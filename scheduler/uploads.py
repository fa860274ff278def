"""Taking notifications in.

Rules: what a request_id was answered before is looked up first, so that a repeated request gets the same answer though its time has
passed or the tags have changed. The same request may be under way at another scheduler: so its times are judged by when it came,
and what the times or the tags forbid is refused in the store, where one of both is the first answer. Nothing is answered before it
is stored.
"""

from collections.abc import Callable

from pyroaring import BitMap

from mesh import errors, naming
from scheduler import checks, repeats, timing
from scheduler.audiences import Audiences, Resolved
from scheduler.ports import NotificationStore
from scheduler.recurrence import Calendar
from scheduler.requests import RequestKey
from scheduler.timing import Lifetimes
from tidings.common.v1.notification_pb2 import EXPAND_AT_UPLOAD, NotificationSpec
from tidings.store.v1.notification_pb2 import CreateNotificationRequest, Expansion, StoredNotification

_FIELD = "spec.audience"
_MAX_EXPANSION_BYTES = 15 * 1024 * 1024  # what the store takes


class Uploads:
    """Checks an upload, completes it, stores it.

    Args:
        clock: microseconds since 1970.
        on_stored: called when something new is stored, which may be due.
    """

    def __init__(
        self,
        store: NotificationStore,
        audiences: Audiences,
        calendar: Calendar,
        lifetimes: Lifetimes,
        max_content_bytes: int,
        clock: Callable[[], int],
        on_stored: Callable[[], None],
    ) -> None:
        self._store = store
        self._audiences = audiences
        self._calendar = calendar
        self._lifetimes = lifetimes
        self._max_content_bytes = max_content_bytes
        self._clock = clock
        self._on_stored = on_stored

    async def upload(self, key: RequestKey, spec: NotificationSpec) -> StoredNotification:
        """Take a notification; the one taken before when the request was made before.

        Raises:
            TidingsError: REQUEST_ID_CONFLICT; EMPTY_AUDIENCE; PUSH_NOT_CONFIGURED; CONTENT_TOO_LARGE; INVALID_FIELD; what the tags'
                service finds wrong with an expression.
        """
        came = self._clock()
        checks.request_id(key.request_id)
        checks.spec(spec, self._max_content_bytes)
        if known := await repeats.first_answer(self._store, key):
            return known
        try:
            request = await self._request(key, timing.complete(spec, came, self._calendar, self._lifetimes))
        except errors.TidingsError as error:
            return await repeats.refuse(self._store, key, error)
        created = await self._store.create(request)
        self._on_stored()
        return created.notification

    async def _request(self, key: RequestKey, spec: NotificationSpec) -> CreateNotificationRequest:
        names = await self._audiences.names(spec.audience, _FIELD)
        if spec.audience.recipient_ids or spec.audience.excluded_ids:  # of whom some may come into being: not for nothing
            self._check_somebody(spec, await self._audiences.count(spec.audience, _FIELD))
        resolved = await self._audiences.resolve(spec)
        members, version, _ = await self._audiences.expand(spec.audience, resolved, _FIELD)
        self._check_somebody(spec, len(members))
        request = _request(key, spec, names, resolved)
        request.estimated_audience = len(members)
        if spec.expand_at == EXPAND_AT_UPLOAD:
            request.expansion.CopyFrom(_expansion(members, version))
        return request

    @staticmethod
    def _check_somebody(spec: NotificationSpec, count: int) -> None:
        if not count and not spec.allow_empty_audience:
            raise errors.empty_audience()


def _request(key: RequestKey, spec: NotificationSpec, names: list[str], resolved: Resolved) -> CreateNotificationRequest:
    notification_id, recurs = naming.new_notification_id(), spec.HasField("recurrence")
    return CreateNotificationRequest(
        request_id=key.request_id,
        request_digest=key.digest,
        notification_id=notification_id,
        spec=spec,
        recipient_ordinals=resolved.recipients.serialize() if resolved.recipients else b"",
        excluded_ordinals=resolved.excluded.serialize() if resolved.excluded else b"",
        names=names,
        series_id=notification_id if recurs else "",
        occurrence=1 if recurs else 0,
    )


def _expansion(members: BitMap, version: int) -> Expansion:
    members.run_optimize()
    data = members.serialize() if members else b""
    if len(data) > _MAX_EXPANSION_BYTES:
        raise errors.invalid_field("spec.expand_at", "this audience is too large to be kept: leave it at SEND")
    return Expansion(user_ordinals=data, snapshot_version=version)
