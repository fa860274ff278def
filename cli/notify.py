"""`tidings notify …`: send to many, and see and steer what is under way.

`tidings notify EXPRESSION --text …` is `tidings notify send EXPRESSION --text …`: a first word that is no subcommand is the
expression.
"""

import difflib
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cli import notify_watch
from cli.business import ApiKey, Door, Scheduler
from cli.failure import USAGE, CommandError
from cli.notify_lines import over, progress_line, report_json, report_lines, summary, to_json
from cli.options import DEFAULT_DATA, Data, Json, note, say, say_json
from cli.times import local, moment
from tidings.common.v1 import notification_pb2 as common
from tidings.common.v1.content_pb2 import Content, Text
from tidings.scheduler.v1 import scheduler_pb2 as pb
from tidings_client.business import Business, new_request_id

PAGE = 1_000
MOST_RATE = 2**32 - 1  # what can be said at all; the scheduler says what makes sense


class _SendByDefault(TyperGroup):
    """A first word that is no subcommand begins `send`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            near = difflib.get_close_matches(args[0], self.commands, 1)
            if near and not any(word.startswith("--text") for word in args):
                raise CommandError(f"no command {args[0]!r}", f"did you mean `tidings notify {near[0]}`?", status=USAGE)
            args = ["send", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_SendByDefault,
    rich_markup_mode="rich",
    no_args_is_help=True,
    help="Send to many, and see and steer what is under way.",
    epilog="Example: [bold]tidings notify 'vip + (beta & !churned)' --text 'The doors are open' --watch[/bold]",
)


class OutcomeName(StrEnum):
    """See `Outcome` in proto/tidings/common/v1/notification.proto."""

    EXPANSION = "expansion"
    SENT = "sent"
    DELIVERED = "delivered"
    PENDING = "pending"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


Id = Annotated[str, typer.Argument(help="The notification's id.", metavar="NOTIFICATION")]
Time = Annotated[str | None, typer.Option("--at", help="When: +10m, or a time; now when left out.", metavar="TIME")]
Expires = Annotated[str | None, typer.Option("--expires", help="Nobody is sent it from then on: +2d, or a time.", metavar="TIME")]
Users = Annotated[list[str], typer.Option("--user", help="This user too; several times.", metavar="USER")]
Watch = Annotated[bool, typer.Option("--watch", help="Show how it goes until it is over; Ctrl-C stops looking, not sending.")]
Priority = Annotated[int, typer.Option("--priority", help="0 to 9; the highest goes first.", min=0, max=9)]


@app.command(epilog="Example: [bold]tidings notify 'vip & beta' --text 'Hello' --at +10m --priority 5 --rate 500 --watch[/bold]")
def send(
    expression: Annotated[str, typer.Argument(help="Whom, as in `tidings tag count`.", metavar="EXPRESSION")] = "",
    text: Annotated[str, typer.Option("--text", help="What it says; - reads it from standard input.", metavar="TEXT")] = "",
    kind: Annotated[str, typer.Option("--type", help="What kind of message it is to the application.", metavar="TYPE")] = "",
    at: Time = None,
    expires: Expires = None,
    priority: Priority = 0,
    rate: Annotated[
        int | None, typer.Option("--rate", help="Recipients a second at most.", min=0, max=MOST_RATE, metavar="NUMBER")
    ] = None,
    users: Users = [],  # noqa: B006  (read only)
    excluded: Annotated[str, typer.Option("--except", help="An expression of whom to leave out.", metavar="EXPRESSION")] = "",
    cron: Annotated[
        str | None, typer.Option("--cron", help="Again and again: minute hour day month weekday.", metavar="CRON")
    ] = None,
    zone: Annotated[
        str | None, typer.Option("--zone", help="Time zone of --cron, such as Europe/Zurich; else UTC.", metavar="ZONE")
    ] = None,
    early: Annotated[bool, typer.Option("--expand-now", help="Settle the audience now, not when it is sent.")] = False,
    watch: Watch = False,
    request_id: Annotated[
        str, typer.Option("--request-id", help="Makes a repetition of this very command harmless.", metavar="ID")
    ] = "",
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
    scheduler: Scheduler = None,
    api_key: ApiKey = None,
) -> None:
    """Send a notification to everybody an expression means."""
    spec = common.NotificationSpec(
        audience=common.Audience(recipient_ids=users, expression=expression, excluded_expression=excluded),
        type=kind,
        content=Content(text=Text(text=_text(text))),
        priority=priority,
        send_time=None if at is None else moment(at, "--at"),
        expire_time=None if expires is None else moment(expires, "--expires"),
        rate_per_second=rate,
        expand_at=common.EXPAND_AT_UPLOAD if early else common.EXPAND_AT_UNSPECIFIED,
        recurrence=_recurrence(cron, zone),
    )
    request = pb.UploadNotificationRequest(request_id=request_id or new_request_id(), spec=spec)

    async def work(business: Business) -> None:
        answer = await business.notifications.UploadNotification(request)
        _taken(answer, as_json=as_json)
        if watch:
            await notify_watch.watch(business, answer.notification.notification_id, as_json=as_json)

    Door(data, scheduler=scheduler, api_key=api_key).run(work)


def _recurrence(cron: str | None, zone: str | None) -> common.Recurrence | None:
    if cron is None and zone is not None:
        raise CommandError("--zone says in which time zone --cron is read, and there is no --cron", "give --cron too")
    return None if cron is None else common.Recurrence(cron=cron, time_zone=zone or "")


def _text(word: str) -> str:
    if word == "-":
        return typer.get_text_stream("stdin").read()
    if not word:
        raise CommandError("it says nothing", "give --text TEXT, or --text - to read it from standard input")
    return word


def _taken(answer: pb.UploadNotificationResponse, *, as_json: bool) -> None:
    one = answer.notification
    if as_json:
        say_json({**to_json(one), "estimated_audience": answer.estimated_audience})
    else:
        say(f"{one.notification_id} for {answer.estimated_audience:,}, due {local(one.spec.send_time)}")


@app.command("list", epilog="Example: [bold]tidings notify list --state sending[/bold]")
def list_notifications(
    states: Annotated[list[str], typer.Option("--state", help="Only in this state; several times.", metavar="STATE")] = [],  # noqa: B006  (read only)
    limit: Annotated[int, typer.Option("--limit", help="The newest so many.", min=1, max=1_000)] = 20,
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
    scheduler: Scheduler = None,
    api_key: ApiKey = None,
) -> None:
    """List notifications, the newest first."""
    wanted = [_state(name) for name in states]

    async def work(business: Business) -> list[pb.Notification]:
        found: list[pb.Notification] = []
        token = ""
        while True:
            request = pb.ListNotificationsRequest(states=wanted, page_size=limit - len(found), page_token=token)
            page = await business.notifications.ListNotifications(request)
            found += page.notifications
            if not (token := page.next_page_token) or len(found) >= limit:
                return found

    for one in Door(data, scheduler=scheduler, api_key=api_key).run(work):
        if as_json:
            say_json(to_json(one))
        else:
            say(summary(one))


def _state(name: str) -> common.NotificationState.ValueType:
    try:
        return common.NotificationState.Value(f"NOTIFICATION_STATE_{name.upper()}")
    except ValueError:
        known = ", ".join(one.removeprefix("NOTIFICATION_STATE_").lower() for one in common.NotificationState.keys()[1:])
        raise CommandError(f"no state {name!r}", f"use one of {known}") from None


@app.command(epilog="Example: [bold]tidings notify report nabc… --who pending[/bold]")
def report(
    notification: Id,
    who: Annotated[OutcomeName | None, typer.Option("--who", help="The recipients with this outcome, one a line.")] = None,
    watch: Watch = False,
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
    scheduler: Scheduler = None,
    api_key: ApiKey = None,
) -> None:
    """Say what became of a notification."""
    door = Door(data, scheduler=scheduler, api_key=api_key)
    if who is not None:
        door.run(lambda business: _who(business, notification, who, as_json=as_json))
    elif watch:
        door.run(lambda business: notify_watch.watch(business, notification, as_json=as_json))
    else:
        _show(door.run(lambda business: _get(business, notification)).report, as_json=as_json)


async def _get(business: Business, notification_id: str) -> pb.Notification:
    answer = await business.notifications.GetNotification(pb.GetNotificationRequest(notification_id=notification_id))
    return answer.notification


async def _who(business: Business, notification_id: str, who: OutcomeName, *, as_json: bool) -> None:
    token = ""
    while True:
        request = pb.ListRecipientsRequest(
            notification_id=notification_id,
            outcome=common.Outcome.Value(f"OUTCOME_{who.name}"),
            page_size=PAGE,
            page_token=token,
        )
        page = await business.notifications.ListRecipients(request)
        for user in page.user_ids:
            if as_json:
                say_json({"user_id": user})
            else:
                say(user)
        if not (token := page.next_page_token):
            return


@app.command(epilog="Example: [bold]tidings notify cancel nabc…[/bold]")
def cancel(
    notification: Id,
    series: Annotated[bool, typer.Option("--series", help="No further occurrence of its series either.")] = False,
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
    scheduler: Scheduler = None,
    api_key: ApiKey = None,
) -> None:
    """End a notification; says how many had been sent it. Nobody else will be."""
    request = pb.CancelNotificationRequest(request_id=new_request_id(), notification_id=notification, whole_series=series)

    async def work(business: Business) -> pb.CancelNotificationResponse:
        return await business.notifications.CancelNotification(request)

    ended = Door(data, scheduler=scheduler, api_key=api_key).run(work)
    if as_json:
        say_json({**report_json(ended.notification.report), "sent": ended.sent})
    else:
        say(f"cancelled {notification}: {ended.sent:,} had been sent it, nobody else will be")


@app.command(epilog="Example: [bold]tidings notify pause nabc…[/bold]")
def pause(
    notification: Id, as_json: Json = False, data: Data = DEFAULT_DATA, scheduler: Scheduler = None, api_key: ApiKey = None
) -> None:
    """Hold a notification back until it is resumed."""

    async def work(business: Business) -> pb.Notification:
        request = pb.PauseNotificationRequest(request_id=new_request_id(), notification_id=notification)
        return (await business.notifications.PauseNotification(request)).notification

    _changed(work, Door(data, scheduler=scheduler, api_key=api_key), as_json=as_json)


@app.command(epilog="Example: [bold]tidings notify resume nabc…[/bold]")
def resume(
    notification: Id, as_json: Json = False, data: Data = DEFAULT_DATA, scheduler: Scheduler = None, api_key: ApiKey = None
) -> None:
    """Let a paused notification go on."""

    async def work(business: Business) -> pb.Notification:
        request = pb.ResumeNotificationRequest(request_id=new_request_id(), notification_id=notification)
        return (await business.notifications.ResumeNotification(request)).notification

    _changed(work, Door(data, scheduler=scheduler, api_key=api_key), as_json=as_json)


@app.command(epilog="Example: [bold]tidings notify reprioritize nabc… 9[/bold]")
def reprioritize(
    notification: Id,
    priority: Annotated[int, typer.Argument(help="0 to 9.", min=0, max=9, metavar="PRIORITY")],
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
    scheduler: Scheduler = None,
    api_key: ApiKey = None,
) -> None:
    """Change a notification's priority."""

    async def work(business: Business) -> pb.Notification:
        request = pb.PrioritizeNotificationRequest(request_id=new_request_id(), notification_id=notification, priority=priority)
        return (await business.notifications.PrioritizeNotification(request)).notification

    _changed(work, Door(data, scheduler=scheduler, api_key=api_key), as_json=as_json)


@app.command(epilog="Example: [bold]tidings notify reschedule nabc… --at 2030-12-31T18:00[/bold]")
def reschedule(
    notification: Id,
    at: Time = None,
    expires: Expires = None,
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
    scheduler: Scheduler = None,
    api_key: ApiKey = None,
) -> None:
    """Move a notification that has not begun to be sent."""

    async def work(business: Business) -> pb.Notification:
        request = pb.RescheduleNotificationRequest(
            request_id=new_request_id(),
            notification_id=notification,
            send_time=None if at is None else moment(at, "--at"),
            expire_time=None if expires is None else moment(expires, "--expires"),
        )
        return (await business.notifications.RescheduleNotification(request)).notification

    _changed(work, Door(data, scheduler=scheduler, api_key=api_key), as_json=as_json)


def _changed(work: Callable[[Business], Awaitable[pb.Notification]], door: Door, *, as_json: bool) -> None:
    one = door.run(work)
    if as_json:
        say_json(to_json(one))
    else:
        say(summary(one))


def _show(found: common.NotificationReport, *, as_json: bool) -> None:
    if as_json:
        say_json(report_json(found))
        return
    for line in report_lines(found):
        say(line)
    if not over(found):
        note(progress_line(found))
