"""A verdict as a table: per promise whether it held, or how often it was broken; then the first breaches with evidence."""

from collections import Counter

from rich.console import Console
from rich.table import Table

from tests.checker.checks import Breach
from tests.checker.history import History
from tests.checker.notification_view import NotificationView
from tests.checker.verdict import promises
from tests.checker.views import View

_PROMISES = {
    "G1": "no stored message is lost",
    "G2": "no duplicate",
    "G3": "one dense order per conversation",
    "G4": "a sender's order, read-your-writes",
    "G5": "history without holes, the same both ways",
    "G6": "receipts never back, never past the last",
    "G7": "nothing outside one's membership",
    "G8": "resume brings all that was missed",
    "G9": "each of the audience once, nobody else, in time",
    "G10": "reports sum up, and tell the truth",
    "G11": "cancel and pause hold",
    "G12": "fences never back",
    "G15": "refusals are named and say when to retry",
    "G17": "one request_id, one answer",
}
_SHOWN = 10  # breaches of one name printed in full; one fault often has hundreds of victims


def print_report(history: History, breaches: list[Breach], console: Console | None = None) -> None:
    """Print the verdict."""
    console = console or Console()
    table = Table(title=summary(history), title_justify="left")
    for column in ("promise", "", "verdict"):
        table.add_column(column)
    for promise in promises(history):
        names = Counter(breach.name for breach in breaches if breach.promise == promise)
        verdict = ", ".join(f"{name} x {count}" for name, count in names.items())
        table.add_row(promise, _PROMISES[promise], f"[red]{verdict}[/red]" if names else "[green]holds[/green]")
    console.print(table)
    for line in evidence(breaches):
        console.print(line, markup=False)


def summary(history: History) -> str:
    """One line: what the history holds."""
    parts = [of_chat(history), of_notifications(history)]
    return "; ".join(part for part in parts if part)


def of_chat(history: History) -> str:
    """What it holds of chat; empty without any."""
    view = View(history)
    if not view.sends:
        return ""
    given, read = sum(map(len, view.streams.values())), sum(len(page.entries) for page in view.pages)
    unsure = sum(send.outcome == "indeterminate" for send in view.sends)
    sent = f"{len(view.sends)} sent, {len(view.stored)} stored, {unsure} indeterminate"
    return f"{len(view.devices)} devices, {len(view.log)} conversations: {sent}; {given} received, {read} read back"


def of_notifications(history: History) -> str:
    """What it holds of notifications; empty without any."""
    view = NotificationView(history)
    if not view.uploads:
        return ""
    steered = [one for one in view.controls if one.outcome == "done"]
    readings = sum(map(len, view.readings.values()))
    users = sum(map(len, view.users_shown.values()))
    return f"{len(view.uploads)} notifications, {len(steered)} times steered: shown to {users} users, {readings} readings"


def evidence(breaches: list[Breach]) -> list[str]:
    """The first breaches of each name, one a line."""
    shown: Counter[str] = Counter()
    lines = []
    for breach in breaches:
        shown[breach.name] += 1
        if shown[breach.name] <= _SHOWN:
            lines.append(f"{breach.promise} {breach.name}: {breach.evidence}")
    return lines
