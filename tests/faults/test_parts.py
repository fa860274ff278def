"""What the table says of a history, and that the proxies know who dials."""

import os
import socket
from pathlib import Path

import pytest

from tests.checker.history import CaughtUp, Entry, Operation, Receive, Send
from tests.faults import table
from tests.faults.dialers import holder
from tests.faults.trial import Result, _delays, _recovery, _silence


def sent(seq: int, invoked: float, completed: float) -> Send:
    return Send("a/phone", "a", seq, "c", f"m{seq}", "text", invoked, completed, "stored", seq, f"c-{seq}")


def received(seq: int, time: float) -> Receive:
    return Receive("b/phone", "b", "c", Entry(seq, f"c-{seq}", "a", f"m{seq}"), time)


HISTORY: list[Operation] = [
    CaughtUp("b/phone", "b", 0.0, 0.1, {}),
    sent(1, 1.0, 1.1),
    received(1, 1.3),
    sent(2, 2.0, 5.0),
    CaughtUp("b/phone", "b", 5.5, 5.6, {}),
    received(2, 6.0),
]


def test_a_delivery_is_timed_from_when_it_was_stored_or_the_device_was_there() -> None:
    assert [round(delay, 3) for delay in _delays(HISTORY)] == [0.2, 0.5]


def test_silence_is_the_longest_time_without_an_answer() -> None:
    assert round(_silence(HISTORY, (2.0, 4.0)), 3) == 3.9


def test_recovery_counts_what_was_owed_when_the_fault_was_over() -> None:
    assert round(_recovery(HISTORY, 4.0), 3) == 1.0, "the answer; the device was not open then, so its delivery is not owed"
    assert round(_recovery([*HISTORY[:4], received(2, 6.0)], 4.0), 3) == 2.0


def test_a_row_that_does_not_hold_is_marked() -> None:
    assert "**x**: red" in table._line(Result("x", 1, settled=True, lost=1, why=["G1 lost"]))
    assert "red" not in table._line(Result("x", 1, settled=True))
    assert "not run: needs root" in table._line(Result("x", 1, not_here="needs root"))


def test_the_newest_result_of_each_fault_is_kept(tmp_path: Path) -> None:
    path, order = tmp_path / "results.json", ["a", "b"]
    table.merge([Result("b", 1), Result("a", 1)], path, order)
    kept = table.merge([Result("a", 2), Result("gone", 2)], path, order)
    assert [(one.fault, one.seed) for one in kept] == [("a", 2), ("b", 1)]


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::ffff:127.0.0.1")])
def test_the_holder_of_a_connection_is_found(family: socket.AddressFamily, address: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(family) as client:
        client.connect((address, server.getsockname()[1]))
        port = client.getsockname()[1]
        assert holder(port, {"nobody": 1, "us": os.getpid()}) == "us"
        assert holder(port, {"nobody": 1}) == ""
