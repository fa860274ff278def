"""One history, all the promises that it puts to the test."""

from dataclasses import replace

from rich.console import Console

from tests.checker.history import Entry, Operation, Receive, Reported, Run, Send, Uploaded
from tests.checker.report import print_report, summary
from tests.checker.verdict import judge, promises

SEND = Send("ann/phone", "ann", 1, "dab", "ann-1", "hello", 1.0, 1.1, "stored", 1, "dab:1")
HEARD = Receive("bob/phone", "bob", "dab", Entry(1, "dab:1", "ann", "ann-1"), 1.2)
UPLOAD = Uploaded("shop", "r-1", None, ("ann",), (), 0, 1.0, 9.0, 0.9, 1.0, "taken", "n-1")
READING = Reported("poll", "n-1", "SENDING", 1, 1, 2, -1, 0, 0, 0, 0, 2.0, 2.1)


def test_only_what_is_in_a_history_is_judged() -> None:
    assert promises([SEND]) == ["G1", "G2", "G3", "G4", "G5", "G6", "G7", "G8", "G15", "G17"]
    assert promises([UPLOAD, READING]) == ["G9", "G10", "G11", "G15", "G17"]
    fenced = replace(READING, fence=3)
    assert promises([SEND, UPLOAD, fenced]) == [f"G{number}" for number in range(1, 13)] + ["G15", "G17"]


def test_breaches_of_both_kinds_are_reported() -> None:
    history: list[Operation] = [Run(7), SEND, UPLOAD, READING, HEARD, HEARD]
    found = {breach.promise for breach in judge(history)}
    assert {"G2", "G10"} <= found
    console = Console(width=140)
    with console.capture() as said:
        print_report(history, judge(history), console)
    for name in (*found, "more_than_possible"):
        assert name in said.get()
    assert summary(history).startswith("0 devices, 1 conversations: 1 sent, 1 stored") and "1 notifications" in summary(history)
