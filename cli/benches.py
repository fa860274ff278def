"""`tidings bench`: what `bench/` measures, as commands."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.chat import ChatOptions, run
from bench.chat_report import ChatReport, print_chat
from bench.figures import Figures
from bench.remote import GeneratorFailedError
from bench.tables import print_figures
from cli.bench_reports import compare_reports, run_all, terminal
from cli.failure import CommandError
from cli.options import DEFAULT_DATA, Data, Secret, Url, say
from cli.place import Place
from tidings_client.business import BusinessError

app = typer.Typer(
    rich_markup_mode="rich",
    no_args_is_help=True,
    help="Measure.",
    epilog="Example: [bold]tidings bench chat --users 200 --seconds 20[/bold]",
)


class Mode(StrEnum):
    """How the mesh that is measured runs."""

    PROCESS = "process"
    FLEET = "fleet"


class Mix(StrEnum):
    """Who writes to whom."""

    PAIRS = "pairs"
    GROUPS10 = "groups10"
    GROUPS100 = "groups100"
    MIXED = "mixed"


@app.callback()
def _bench() -> None:
    """Measure."""


app.command(name="all", epilog="Example: [bold]tidings bench all --only tags --only idle[/bold]")(run_all)
app.command(name="compare", epilog="Example: [bold]tidings bench compare before.json after.json[/bold]")(compare_reports)


@app.command(epilog="Example: [bold]tidings bench chat --users 200 --seconds 20 --json chat.json[/bold]")
def chat(
    users: Annotated[int, typer.Option("--users", help="How many, each connected once.", min=2)] = 200,
    seconds: Annotated[float, typer.Option("--seconds", help="Length of each measured span.", min=0.1)] = 20,
    rate: Annotated[float, typer.Option("--rate", help="Messages a second; 0 searches for the most that holds.", min=0)] = 0,
    file: Annotated[Path | None, typer.Option("--json", help="Write the report there too; - is stdout.", metavar="FILE")] = None,
    mix: Annotated[Mix, typer.Option("--mix", help="Direct chats, groups of 10 or of 100, or some of each.")] = Mix.PAIRS,
    mode: Annotated[
        Mode, typer.Option("--mode", help="One process on SQLite, or a process for each service on PostgreSQL.")
    ] = Mode.PROCESS,
    message_bytes: Annotated[int, typer.Option("--bytes", help="Text of each message.", min=1)] = 120,
    store: Annotated[str, typer.Option("--store", help="postgresql://… for the fleet; else a private server.", metavar="URL")] = "",
    baselines: Annotated[bool, typer.Option("--baselines/--no-baselines", help="Measure the bare parts beside it.")] = True,
    url: Url = None,
    data: Data = DEFAULT_DATA,
    secret: Secret = None,
) -> None:
    """Measure how many messages a second are stored and delivered, how late, and at what cost.

    Starts a mesh of its own to measure; with --url, measures that one. Exits with 1 when a message was lost, doubled or reordered.
    """
    options = ChatOptions(
        users=users,
        seconds=seconds,
        rate=rate,
        mix=mix,
        url=(url or "").rstrip("/"),
        token_secret=Place(data).token_secret(secret) if url else "",
        database=store,
        mode=mode,
        message_bytes=message_bytes,
        baselines=baselines,
    )
    _figures(lambda: run(options), file)


@app.command(epilog="Example: [bold]tidings bench tags --json tags.json[/bold]")
def tags(
    memberships: Annotated[int, typer.Option("--memberships", help="How many to apply.", min=100_000)] = 1_000_000,
    clients: Annotated[int, typer.Option("--clients", help="Known clients.", min=1_000)] = 2_000_000,
    mode: Annotated[
        Mode, typer.Option("--mode", help="One process on SQLite, or a process for each service on PostgreSQL.")
    ] = Mode.PROCESS,
    file: Annotated[Path | None, typer.Option("--json", help="Write the figures there too; - is stdout.", metavar="FILE")] = None,
) -> None:
    """Measure how fast memberships are applied, and how long expressions take."""
    from bench import tags as measured

    _figures(lambda: measured.run(measured.TagOptions(memberships, clients, mode)), file)


@app.command(epilog="Example: [bold]tidings bench notify --clients 1000000 --connected 5000[/bold]")
def notify(
    clients: Annotated[int, typer.Option("--clients", help="Known clients.", min=1_000)] = 10_000_000,
    connected: Annotated[int, typer.Option("--connected", help="How many of them are there.", min=1)] = 10_000,
    size: Annotated[int, typer.Option("--bytes", help="Text of the notification.", min=1)] = 120,
    mode: Annotated[
        Mode, typer.Option("--mode", help="One process on SQLite, or a process for each service on PostgreSQL.")
    ] = Mode.FLEET,
    baselines: Annotated[bool, typer.Option("--baselines/--no-baselines", help="Measure a bare fan-out beside it.")] = True,
    file: Annotated[Path | None, typer.Option("--json", help="Write the figures there too; - is stdout.", metavar="FILE")] = None,
) -> None:
    """Measure a notification to millions of clients, of whom thousands are connected. Exits with 1 when a promise was broken."""
    from bench import notify as measured

    _figures(lambda: measured.run(measured.NotifyOptions(clients, connected, size, mode, baselines)), file)


@app.command(epilog="Example: [bold]tidings bench fanout --members 5000 --rate 20[/bold]")
def fanout(
    members: Annotated[int, typer.Option("--members", help="Of the group, all connected to one edge.", min=2, max=5_000)] = 5_000,
    rate: Annotated[float, typer.Option("--rate", help="Messages a second in the group.", min=0.1)] = 20,
    seconds: Annotated[float, typer.Option("--seconds", help="Length of each measured span.", min=0.1)] = 15,
    senders: Annotated[int, typer.Option("--senders", help="Members who write them.", min=1)] = 4,
    chat_rate: Annotated[float, typer.Option("--chat-rate", help="Messages a second of 40 users in pairs beside it.", min=1)] = 40,
    size: Annotated[int, typer.Option("--bytes", help="Text of each message.", min=1)] = 120,
    mode: Annotated[
        Mode, typer.Option("--mode", help="One process on SQLite, or a process for each service on PostgreSQL.")
    ] = Mode.FLEET,
    search: Annotated[bool, typer.Option("--search/--no-search", help="Raise the rate until the edge falls behind.")] = True,
    baselines: Annotated[bool, typer.Option("--baselines/--no-baselines", help="Measure a bare fan-out beside it.")] = True,
    file: Annotated[Path | None, typer.Option("--json", help="Write the figures there too; - is stdout.", metavar="FILE")] = None,
) -> None:
    """Measure a group of thousands with busy senders, and what it does to others. Exits with 1 when a promise was broken."""
    from bench import fanout as measured

    options = measured.FanoutOptions(
        members=members,
        rate=rate,
        seconds=seconds,
        senders=min(senders, members),
        chat_rate=chat_rate,
        size=size,
        mode=mode,
        search=search,
        baselines=baselines,
    )
    _figures(lambda: measured.run(options), file)


@app.command(epilog="Example: [bold]tidings bench connect --sessions 10000 --rate 500[/bold]")
def connect(
    sessions: Annotated[int, typer.Option("--sessions", help="How many are lost at once.", min=1, max=15_000)] = 10_000,
    rate: Annotated[float, typer.Option("--rate", help="Attempts a second, where they are paced.", min=1)] = 1_000,
    mode: Annotated[
        Mode, typer.Option("--mode", help="One process on SQLite, or a process for each service on PostgreSQL.")
    ] = Mode.FLEET,
    storm: Annotated[bool, typer.Option("--storm/--no-storm", help="Also let all come within the SDK's first backoff.")] = True,
    baselines: Annotated[bool, typer.Option("--baselines/--no-baselines", help="Measure bare handshakes beside it.")] = True,
    file: Annotated[Path | None, typer.Option("--json", help="Write the figures there too; - is stdout.", metavar="FILE")] = None,
) -> None:
    """Measure a reconnect storm: every session is lost, and all come back. Exits with 1 when something missed did not come."""
    from bench import connect as measured

    _figures(lambda: measured.run(measured.ConnectOptions(sessions, rate, mode, storm, baselines)), file)


@app.command(epilog="Example: [bold]tidings bench growth members --json growth-members.json[/bold]")
def growth(
    part: Annotated[str, typer.Argument(help="members, tags, edges or routers.", metavar="PART")],
    file: Annotated[Path | None, typer.Option("--json", help="Write the figures there too; - is stdout.", metavar="FILE")] = None,
) -> None:
    """Measure whether cost grows along straight lines, by members, tagged clients, edges or routers. A part takes two minutes."""
    from bench import growth as measured

    _figures(lambda: measured.run(part), file)


@app.command(epilog="Example: [bold]tidings bench idle --sessions 5000 --no-tls[/bold]")
def idle(
    sessions: Annotated[int, typer.Option("--sessions", help="How many, on one edge.", min=1, max=18_000)] = 15_000,
    seconds: Annotated[float, typer.Option("--seconds", help="Of idling; a round of heartbeats takes 30.", min=0.1)] = 30,
    tls: Annotated[bool, typer.Option("--tls/--no-tls", help="Measure once more with TLS, which the edge serves.")] = True,
    mode: Annotated[
        Mode, typer.Option("--mode", help="One process on SQLite, or a process for each service on PostgreSQL.")
    ] = Mode.FLEET,
    baselines: Annotated[bool, typer.Option("--baselines/--no-baselines", help="Measure a bare server beside it.")] = True,
    file: Annotated[Path | None, typer.Option("--json", help="Write the figures there too; - is stdout.", metavar="FILE")] = None,
) -> None:
    """Measure what a session that says nothing costs in memory and CPU. Exits with 1 when one was closed meanwhile."""
    from bench import idle as measured

    _figures(lambda: measured.run(measured.IdleOptions(sessions, seconds, tls, mode, baselines)), file)


def _figures(measure: Callable[[], Figures], file: Path | None) -> None:
    """Measure, print tables (on stderr where JSON goes to stdout), and write JSON where asked."""
    found, on_stdout = _run(measure), file == Path("-")
    _print(found, terminal(stderr=on_stdout))
    if on_stdout:
        say(found.to_json())
    elif file is not None:
        found.save(file)
    if found.broken:
        raise CommandError(f"promises broken: {', '.join(found.broken)}", "the report has the counts")


def _print(found: Figures, console: Console) -> None:
    if isinstance(found, ChatReport):
        print_chat(found, console)
    else:
        print_figures(found, console)


def _run(measure: Callable[[], Figures]) -> Figures:
    try:
        return measure()
    except (ValueError, GeneratorFailedError, BusinessError, TimeoutError, OSError) as error:
        raise CommandError(f"the bench could not run: {error}") from error
