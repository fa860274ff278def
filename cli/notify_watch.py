"""Watching a notification go out: a bar on a terminal, a line at each change elsewhere, JSON lines with --json.

A scheduler that goes away meanwhile is asked again: only looking stops with the command, never sending.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from cli.notify_lines import over, percentage, progress_line, report_json, report_lines, state
from cli.options import note, say, say_json
from tidings.common.v1.notification_pb2 import NotificationReport
from tidings.scheduler.v1.scheduler_pb2 import WatchNotificationRequest
from tidings_client.business import Business, BusinessError


async def watch(business: Business, notification_id: str, *, as_json: bool) -> None:
    """Show reports until it is over."""
    bar = _Bar() if sys.stdout.isatty() and not as_json else None
    last = NotificationReport()
    with bar or nullcontext():
        async for last in reports(business, notification_id):
            if bar is not None:
                bar.show(last)
            elif as_json:
                say_json(report_json(last))
            else:
                say(progress_line(last))
    if not as_json:
        for line in report_lines(last):
            say(line)


async def reports(business: Business, notification_id: str) -> AsyncIterator[NotificationReport]:
    """Reports as they change, also across a scheduler's restart, until it is over."""
    request, told = WatchNotificationRequest(notification_id=notification_id), False
    while True:
        try:
            async for response in business.notifications.WatchNotification(request):
                told = False
                yield response.report
                if over(response.report):
                    return
        except BusinessError as error:
            if error.retry_after is None:
                raise
            if not told:  # once is enough until it is back
                note(f"the scheduler is away ({error.reason}), asking again")
            told = True
            await asyncio.sleep(error.retry_after)


class _Bar(AbstractContextManager["_Bar"]):
    """The progress of one notification on a terminal."""

    def __init__(self) -> None:
        columns = TextColumn("{task.fields[state]:<9}"), BarColumn(), TextColumn("{task.description}")
        self._progress = Progress(*columns, console=Console())
        self._task: TaskID = self._progress.add_task("waiting", total=None, state="")

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, report: NotificationReport) -> None:
        """Show a reading."""
        channels = ", ".join(f"{one.delivered:,} of {one.sent:,} live" for one in report.channels)
        text = f"{report.expansion:,} expanded  {report.sent:,} sent  {percentage(report)}" + (
            f"  ({channels})" if channels else ""
        )
        total = report.expansion or None
        self._progress.update(self._task, total=total, completed=report.delivered, description=text, state=state(report))
