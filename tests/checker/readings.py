"""Reads what became of notifications, and writes down what it read and when."""

from collections.abc import Callable

from tests.checker.history import Recipients, Reported
from tests.checker.recorder import Recorder
from tidings.common.v1 import notification_pb2 as common
from tidings.scheduler.v1 import scheduler_pb2 as pb
from tidings_client.business import Business

OUTCOMES = ("expansion", "sent", "delivered")
_PAGE = 7  # small, so that a reading is several pages


class Readings:
    """See the module.

    Args:
        fence: reads a notification's fence, where the judge may look into the store; None where it may not.
    """

    def __init__(self, business: Business, recorder: Recorder, fence: Callable[[str], int] | None) -> None:
        self._service = business.notifications
        self._recorder = recorder
        self._fence = fence

    async def report(self, name: str) -> None:
        """Read a report.

        Raises:
            BusinessError: it can't be read.
        """
        invoked, fence = self._recorder.now(), self._fence(name) if self._fence is not None else 0
        answer = await self._service.GetNotification(pb.GetNotificationRequest(notification_id=name))
        found, now = answer.notification.report, self._recorder.now()
        state = common.NotificationState.Name(found.state).removeprefix("NOTIFICATION_STATE_")
        numbers = (found.expansion, found.sent, found.delivered, found.pending, found.failed, found.expired, found.cancelled)
        self._recorder.add(Reported("business", name, state, *numbers, found.snapshot_version, invoked, now, fence))

    async def recipients(self, name: str, outcome: str) -> None:
        """Read who has an outcome.

        Raises:
            BusinessError: it can't be read.
        """
        users: list[str] = []
        wanted, token = common.Outcome.Value(f"OUTCOME_{outcome.upper()}"), ""
        while True:
            request = pb.ListRecipientsRequest(notification_id=name, outcome=wanted, page_size=_PAGE, page_token=token)
            page = await self._service.ListRecipients(request)
            users += page.user_ids
            if not (token := page.next_page_token):
                break
        self._recorder.add(Recipients("business", name, outcome, tuple(users), self._recorder.now()))
