"""`tidings top`: a live table of all nodes of a mesh; with --json or --once, one look for scripts."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cli.inside import Certificates, Gate, RegistryUrl
from cli.options import DEFAULT_DATA, Data, Json, say_json
from cli.top_rows import Row, total
from cli.top_source import Source

_STYLES = {"away": "bold red", "draining": "yellow"}
_WORDS = ("node", "state", "zone")
_NUMBERS = ("conns", "msgs/s", "notif/s", "queued", "lag ms", "links", "CPU%", "MiB")

app = typer.Typer(rich_markup_mode="rich")


@app.command(epilog="Examples: [bold]tidings top[/bold], [bold]tidings top --json | jq .total[/bold]")
def top(
    every: Annotated[
        float, typer.Option("--every", help="Seconds between looks; rates are over them.", min=0.2, metavar="SECONDS")
    ] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="One look.")] = False,
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
    registry: RegistryUrl = None,
    certs: Certificates = None,
) -> None:
    """Watch all nodes: connections, rates, what waits, lag. Red ones don't answer. Ctrl-C ends it."""
    asyncio.run(_top(Gate(data, registry, certs), every, live=not (once or as_json), as_json=as_json))


async def _top(gate: Gate, every: float, *, live: bool, as_json: bool) -> None:
    async with gate.open() as inside, Source.opened(inside, gate.running) as source:
        await source.rows()  # rates take two looks
        await asyncio.sleep(every)
        rows = await source.rows()
        if as_json:
            say_json({"nodes": [row.to_json() for row in rows], "total": total(rows)})
        elif live:
            await _live(source, rows, every)
        else:
            Console(highlight=False).print(picture(rows))


async def _live(source: Source, rows: Sequence[Row], every: float) -> None:
    with Live(picture(rows), console=Console(highlight=False), auto_refresh=False, screen=True) as screen:
        while True:
            await asyncio.sleep(every)
            screen.update(picture(await source.rows()), refresh=True)


def picture(rows: Sequence[Row]) -> Group:
    """The table, and above it what the mesh does as a whole."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    zones = any(one.zone for one in rows)
    for name in _WORDS if zones else _WORDS[:2]:
        table.add_column(name, no_wrap=True)
    for name in _NUMBERS:
        table.add_column(name, justify="right", no_wrap=True)
    for one in rows:
        table.add_row(one.name, one.state, *([one.zone] if zones else ()), *_numbers(one), style=_STYLES.get(one.state))
    return Group(_headline(rows), table)


def _headline(rows: Sequence[Row]) -> Text:
    sums = total(rows)
    text = (
        f"{len(rows)} nodes  {sums['connections']:,.0f} connections  {sums['messages_per_second']:,.1f} messages/s"
        f"  {sums['notifications_per_second']:,.1f} notifications/s"
    )
    if sums["dead_letters"]:
        text += f"  {sums['dead_letters']:,.0f} dead letters"
    away = f"  {sums['away']:.0f} away" if sums["away"] else ""
    return Text.assemble((text, "bold"), (away, "bold red"))


def _numbers(one: Row) -> tuple[str, ...]:
    return (
        _number(one.connections),
        _number(one.messages_per_second, 1),
        _number(one.notifications_per_second, 1),
        _number(one.queued),
        _number(one.lag_ms, 1),
        _number(one.links),
        _number(None if one.cpu is None else one.cpu * 100),
        _number(one.rss_mb),
    )


def _number(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:,.{digits}f}"
