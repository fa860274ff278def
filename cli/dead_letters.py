"""`tidings deadletter …`: work that failed for a reason that won't pass: see it, have it done after all, forget it."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer
from google.protobuf import json_format
from google.protobuf.message import DecodeError

from cli.failure import USAGE, CommandError
from cli.inside import Certificates, Gate, Inside, RegistryUrl
from cli.lines import clock, plain, utc
from cli.options import DEFAULT_DATA, Data, Json, note, say, say_json
from mesh import errors
from tidings.store.v1 import dead_letter_pb2 as pb
from tidings.store.v1.dead_letter_pb2_grpc import DeadLetterServiceStub
from tidings.store.v1.message_log_pb2 import MarkAdvance

PAGE = 200
_PREFIX = "DEAD_LETTER_KIND_"

app = typer.Typer(
    rich_markup_mode="rich",
    no_args_is_help=True,
    help="See, replay and discard work that failed for good.",
    epilog="Example: [bold]tidings deadletter list[/bold], mend the cause, [bold]tidings deadletter replay dl-…[/bold]",
)


class KindName(StrEnum):
    """See `DeadLetterKind` in proto/tidings/store/v1/dead_letter.proto."""

    DISPATCH = "dispatch"
    MARKS = "marks"
    NOTIFICATION = "notification"


LetterId = Annotated[str, typer.Argument(help="Its id, as `tidings deadletter list` has it.", metavar="ID")]
LetterIds = Annotated[list[str], typer.Argument(help="Ids, as `tidings deadletter list` has them.", metavar="[ID…]")]
Kind = Annotated[KindName | None, typer.Option("--kind", help="Only these.")]
All = Annotated[bool, typer.Option("--all", help="All that there are now, of --kind if given.")]


@app.command("list", epilog="Example: [bold]tidings deadletter list --kind dispatch[/bold]")
def list_letters(
    kind: Kind = None,
    limit: Annotated[int, typer.Option("--limit", help="The newest, at most so many.", min=1, metavar="N")] = 100,
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
    registry: RegistryUrl = None,
    certs: Certificates = None,
) -> None:
    """List what was put aside, the newest first."""

    async def work(inside: Inside) -> list[pb.DeadLetter]:
        return [letter async for letter in _letters(inside, kind, limit)]

    found = Gate(data, registry, certs).run(work)
    for letter in found:
        if as_json:
            say_json(to_json(letter))
        else:
            say(line(letter, datetime.now(UTC)))
    if not found and not as_json:
        say("nothing was put aside")


@app.command(epilog="Example: [bold]tidings deadletter show dl-…[/bold]")
def show(
    letter_id: LetterId,
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
    registry: RegistryUrl = None,
    certs: Certificates = None,
) -> None:
    """Show one with all that is known of it."""
    request = pb.GetDeadLetterRequest(dead_letter_id=letter_id)

    async def work(inside: Inside) -> pb.DeadLetter:
        answer: pb.GetDeadLetterResponse = await inside.call(
            "store", DeadLetterServiceStub, lambda stub: stub.GetDeadLetter(request)
        )
        return answer.dead_letter

    found = to_json(Gate(data, registry, certs).run(work))
    if as_json:
        say_json(found)
    else:
        for name, value in found.items():
            say(f"{name:<15} {plain(str(value))}")


@app.command(epilog="Example: [bold]tidings deadletter replay --all --kind dispatch[/bold]")
def replay(
    letter_ids: LetterIds = [],  # noqa: B006  (read only)
    every: All = False,
    kind: Kind = None,
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
    registry: RegistryUrl = None,
    certs: Certificates = None,
) -> None:
    """Have the work done again. What fails again comes back."""

    async def one(inside: Inside, letter_id: str) -> None:
        request = pb.ReplayDeadLetterRequest(dead_letter_id=letter_id)
        await inside.call("store", DeadLetterServiceStub, lambda stub: stub.ReplayDeadLetter(request))
        _tell(letter_id, "is being done again", as_json=as_json)

    Gate(data, registry, certs).run(_each(letter_ids, kind, one, every=every))


@app.command(epilog="Example: [bold]tidings deadletter discard dl-…[/bold]")
def discard(
    letter_ids: LetterIds = [],  # noqa: B006  (read only)
    every: All = False,
    kind: Kind = None,
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
    registry: RegistryUrl = None,
    certs: Certificates = None,
) -> None:
    """Forget the work for good: nobody will do it."""

    async def one(inside: Inside, letter_id: str) -> None:
        request = pb.DiscardDeadLetterRequest(dead_letter_id=letter_id)
        await inside.call("store", DeadLetterServiceStub, lambda stub: stub.DiscardDeadLetter(request))
        _tell(letter_id, "is forgotten", as_json=as_json)

    Gate(data, registry, certs).run(_each(letter_ids, kind, one, every=every))


def _each(
    letter_ids: list[str], kind: KindName | None, one: Callable[[Inside, str], Awaitable[None]], *, every: bool
) -> Callable[[Inside], Awaitable[None]]:
    """Does something to the letters given, or to all; one that is refused, or that somebody else dealt with, holds up no other."""
    if bool(letter_ids) == every:
        raise CommandError("which letters?", "give their ids, or --all", status=USAGE)
    if kind is not None and not every:
        raise CommandError("--kind goes with --all", "leave it out", status=USAGE)

    async def work(inside: Inside) -> None:
        wanted = letter_ids or [letter.dead_letter_id async for letter in _letters(inside, kind, None)]
        refused = 0
        for letter_id in wanted:
            try:
                await one(inside, letter_id)
            except errors.TidingsError as error:
                note(f"{letter_id}: {plain(error.message)}")
                refused += 1
        if refused:
            raise CommandError(f"{refused} of {len(wanted)} letters could not be dealt with", "see above for what and why")

    return work


async def _letters(inside: Inside, kind: KindName | None, limit: int | None) -> AsyncIterator[pb.DeadLetter]:
    """Those that are kept, the newest first, at most so many."""
    number = pb.DeadLetterKind.Value(_PREFIX + kind.name) if kind else pb.DEAD_LETTER_KIND_UNSPECIFIED
    token, left = "", limit
    while left is None or left > 0:
        size = PAGE if left is None else min(PAGE, left)
        request = pb.ListDeadLettersRequest(kind=number, page_size=size, page_token=token)
        page = await _page(inside, request)
        for letter in page.dead_letters:
            yield letter
        token = page.next_page_token
        left = None if left is None else left - len(page.dead_letters)
        if not token:
            return


async def _page(inside: Inside, request: pb.ListDeadLettersRequest) -> pb.ListDeadLettersResponse:
    return await inside.call("store", DeadLetterServiceStub, lambda stub: stub.ListDeadLetters(request))


def _tell(letter_id: str, what: str, *, as_json: bool) -> None:
    if as_json:
        say_json({"dead_letter_id": letter_id})
    else:
        say(f"{letter_id} {what}")


def to_json(letter: pb.DeadLetter) -> dict[str, Any]:
    """A letter as `--json` prints it; what it doesn't have is left out."""
    found: dict[str, Any] = {
        "dead_letter_id": letter.dead_letter_id,
        "kind": _kind(letter),
        "subject": letter.subject,
        "reason": letter.reason,
        "detail": letter.detail,
        "attempts": letter.attempts,
        "create_time": utc(letter.create_time.ToDatetime(UTC)),
        "update_time": utc(letter.update_time.ToDatetime(UTC)),
    }
    if letter.kind == pb.DEAD_LETTER_KIND_DISPATCH:
        found |= {"from_seq": letter.from_seq, "to_seq": letter.to_seq}
    if letter.payload:
        found["payload"] = _payload(letter)
    return found


def line(letter: pb.DeadLetter, now: datetime) -> str:
    """A letter in one line."""
    entries = f" {letter.from_seq}-{letter.to_seq}" if letter.kind == pb.DEAD_LETTER_KIND_DISPATCH else ""
    when = clock(letter.update_time.ToDatetime(UTC), now)
    what = f"{_kind(letter)} {plain(letter.subject)}{entries}"
    return f"{letter.dead_letter_id}  {when}  {what}  {letter.attempts} times: {plain(letter.reason)} ({plain(letter.detail)})"


def _kind(letter: pb.DeadLetter) -> str:
    known = pb.DeadLetterKind.DESCRIPTOR.values_by_number.get(letter.kind)
    return known.name.removeprefix(_PREFIX).lower() if known else "unknown"


def _payload(letter: pb.DeadLetter) -> Any:
    """What is known to be a message is shown as one; else hexadecimal."""
    if letter.kind == pb.DEAD_LETTER_KIND_MARKS:
        with contextlib.suppress(DecodeError):  # that may be what was wrong with it
            return json_format.MessageToDict(MarkAdvance.FromString(letter.payload), preserving_proto_field_name=True)
    return letter.payload.hex()
