"""Send a notification to whom a tag expression means, and watch what becomes of it.

    python docs/examples/python/notify.py 'vip + (beta & !churned)' 'The doors are open'

Needs the package `tidings` and a mesh, for example `tidings up` on this machine.
"""

import argparse
import asyncio
from datetime import UTC, datetime, timedelta

from tidings.common.v1.content_pb2 import Content, Text
from tidings.common.v1.notification_pb2 import Audience, NotificationReport, NotificationSpec, NotificationState
from tidings.scheduler.v1.scheduler_pb2 import (
    EstimateAudienceRequest,
    Notification,
    UploadNotificationRequest,
    WatchNotificationRequest,
)
from tidings_client.business import Business, BusinessError, new_request_id


async def main() -> None:
    """Estimate, upload, watch."""
    options = arguments()
    async with Business.connect(scheduler=options.scheduler, api_key=options.api_key) as business:
        audience = Audience(expression=options.expression)
        estimate = await business.notifications.EstimateAudience(EstimateAudienceRequest(audience=audience))
        print(f"{estimate.count} of {estimate.known_clients} clients are meant")
        spec = NotificationSpec(audience=audience, content=Content(text=Text(text=options.text)))
        spec.expire_time.FromDatetime(datetime.now(UTC) + timedelta(minutes=options.minutes))
        notification = await upload(business, spec)
        print(f"uploaded {notification.notification_id}")
        await watch(business, notification.notification_id)


async def upload(business: Business, spec: NotificationSpec) -> Notification:
    """Upload once, however often it takes: the same request_id with the same body is the same notification."""
    request = UploadNotificationRequest(request_id=new_request_id(), spec=spec)
    while True:
        try:
            return (await business.notifications.UploadNotification(request)).notification
        except BusinessError as error:
            if error.retry_after is None:
                raise
            print(f"not yet ({error.reason}), again in {error.retry_after:g} s")
            await asyncio.sleep(error.retry_after)


async def watch(business: Business, notification_id: str) -> None:
    """Print reports until it is over."""
    request = WatchNotificationRequest(notification_id=notification_id)
    async for response in business.notifications.WatchNotification(request):
        print(line(response.report))


def line(report: NotificationReport) -> str:
    """A report on one line."""
    state = NotificationState.Name(report.state).removeprefix("NOTIFICATION_STATE_")
    rest = f"{report.pending} pending, {report.failed} failed, {report.expired} expired, {report.cancelled} cancelled"
    return f"{state}: {report.delivered} of {report.expansion} have it, {rest}"


def arguments() -> argparse.Namespace:
    """What to send to whom."""
    parser = argparse.ArgumentParser(description="Send a notification and watch it.")
    parser.add_argument("expression", help="whom, for example 'vip + (beta & !churned)'")
    parser.add_argument("text", help="what it says")
    parser.add_argument("--scheduler", default="127.0.0.1:9092", help="host:port of the scheduler")
    parser.add_argument("--api-key", help="where the scheduler asks for one")
    parser.add_argument("--minutes", type=float, default=60, help="when it expires")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except BusinessError as failure:
        raise SystemExit(str(failure)) from None
