"""Notifications over real sockets: one showing per device, whatever is repeated, lost, or dies."""

import asyncio
import itertools
import math
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.sdk.conftest import TIMEOUT, until_state
from tests.sdk.fake_server import FakeServer
from tidings.client.v1 import frames_pb2 as pb
from tidings.common.v1.content_pb2 import Content, Text
from tidings_client import Client, ConnectionState, Notification, StateFileError
from tidings_client.state import Changes, State

_numbers = itertools.count()
LETTERS = "abcdefghijklmnopqrstuvwxyz234567"


def name_of(number: int) -> str:
    """A notification's id."""
    return "n" + "".join(LETTERS[number >> 5 * place & 31] for place in reversed(range(26)))


def notification(number: int, *, expires_in: float = 60.0, clock_offset: float = 0.0) -> pb.Notification:
    """One that says its number."""
    made = pb.Notification(notification_id=name_of(number), type="news", priority=3)
    made.content.text.text = str(number)
    now = int((time.time() + clock_offset) * 1000)
    made.send_time.FromMilliseconds(now)
    made.expire_time.FromMilliseconds(now + int(expires_in * 1000))
    return made


async def shown(client: Client, count: int) -> list[str]:
    """Texts of the next notifications."""
    found: list[str] = []
    async with asyncio.timeout(TIMEOUT):
        async for one in client.notifications():
            found.append(one.text)
            if len(found) == count:
                break
    return found


def acknowledgements(server: FakeServer, number: int) -> int:
    return sum(name_of(number) in names for names in server.acknowledged)


@pytest.fixture
async def bob(server: FakeServer) -> AsyncIterator[Client]:
    async with Client(server.url, "bob") as client:
        await client.caught_up()
        yield client


async def test_a_notification_is_shown_and_acknowledged(server: FakeServer, bob: Client) -> None:
    sent = notification(1)
    server.announce(sent)
    async with asyncio.timeout(TIMEOUT):
        got = await anext(bob.notifications())
    assert (got.notification_id, got.type, got.text, got.priority) == (name_of(1), "news", "1", 3)
    assert got.content == Content(text=Text(text="1"))
    assert got.send_time is not None
    assert got.expire_time is not None
    assert (got.expire_time - got.send_time).total_seconds() == 60
    await server.until(lambda: server.acknowledged == [(name_of(1),)])


async def test_the_long_poll_brings_them_too(server: FakeServer) -> None:
    async with Client(server.url, "bob", long_poll="always") as client:
        await client.caught_up()
        server.announce(notification(1))
        assert await shown(client, 1) == ["1"]
        await server.until(lambda: server.acknowledged == [(name_of(1),)])


async def test_repeats_are_acknowledged_each_time_and_shown_once(server: FakeServer, bob: Client) -> None:
    again = notification(1)
    for times in range(1, 4):
        server.announce(again)
        await server.until(lambda times=times: acknowledgements(server, 1) == times)  # type: ignore[misc]
    assert await shown(bob, 1) == ["1"]
    server.announce(again, again)
    await server.until(lambda: acknowledgements(server, 1) >= 4)
    server.announce(notification(2))
    assert await shown(bob, 1) == ["2"], "the first one does not come again"


async def test_a_lost_acknowledgement_is_made_good_on_the_next_connection(server: FakeServer, bob: Client) -> None:
    server.silence = lambda frame: frame.HasField("acknowledge_notification")
    server.announce(notification(1))
    await server.until(lambda: server.counts["acknowledge_notification"] == 1)
    server.silence = lambda frame: False
    server.cut()
    await server.until(lambda: acknowledgements(server, 1) == 1)
    server.announce(notification(2))
    assert await shown(bob, 2) == ["1", "2"]


async def test_acknowledgements_go_together(server: FakeServer, bob: Client) -> None:
    server.announce(*(notification(number) for number in range(1_200)))
    await server.until(lambda: sum(len(names) for names in server.acknowledged) == 1_200)
    assert len(server.acknowledged) < 40
    assert max(len(names) for names in server.acknowledged) <= 1_000
    assert await shown(bob, 1_200) == [str(number) for number in range(1_200)]


async def test_callbacks_get_each_once_and_in_order(server: FakeServer) -> None:
    seen: list[str] = []
    done = asyncio.Event()

    async def on_notification(one: Notification) -> None:
        seen.append(one.text)
        if one.text == "2":
            done.set()
        raise RuntimeError("the application's own")

    async with Client(server.url, "bob") as client:
        client.on(Notification, on_notification)
        await client.caught_up()
        for number in (0, 1, 0, 1, 2):
            server.announce(notification(number))
        await asyncio.wait_for(done.wait(), TIMEOUT)
    assert seen == ["0", "1", "2"]


async def test_several_iterators_share_them(server: FakeServer, bob: Client) -> None:
    first, second = (asyncio.create_task(shown(bob, 1)) for _ in range(2))
    server.announce(notification(1), notification(2))
    assert sorted(await first + await second) == ["1", "2"]


async def test_a_closed_client_ends_the_iteration(server: FakeServer, bob: Client) -> None:
    waiting = asyncio.create_task(anext(bob.notifications(), None))
    await asyncio.sleep(0)
    await bob.close()
    assert await asyncio.wait_for(waiting, TIMEOUT) is None


# ---- restarts


async def test_what_was_shown_is_not_shown_after_a_restart_but_acknowledged(server: FakeServer, tmp_path: Path) -> None:
    state = tmp_path / "bob.sqlite"
    async with Client(server.url, "bob", state=state) as client:
        await client.caught_up()
        server.announce(notification(1))
        assert await shown(client, 1) == ["1"]
        await server.until(lambda: acknowledgements(server, 1) == 1)
    server.acknowledged.clear()
    async with Client(server.url, "bob", state=state) as client:
        await server.until(lambda: acknowledgements(server, 1) == 1)
        server.announce(notification(1), notification(2))
        assert await shown(client, 1) == ["2"]
        await server.until(lambda: acknowledgements(server, 1) == 2)


async def test_what_was_received_and_not_shown_is_shown_after_a_restart_without_a_connection(
    server: FakeServer, tmp_path: Path
) -> None:
    state = tmp_path / "bob.sqlite"
    async with Client(server.url, "bob", state=state) as client:
        await client.caught_up()
        server.announce(notification(1), notification(2))
        await server.until(lambda: acknowledgements(server, 2) == 1)
        assert await shown(client, 1) == ["1"]
    server.connect_status = 503
    async with Client(server.url, "bob", state=state) as client:
        assert await shown(client, 1) == ["2"]
        assert client.state is ConnectionState.CONNECTING


CHILD = """
import asyncio, os, sys
from tidings_client import Client, Notification

async def main():
    url, state, when = sys.argv[1:]
    def die(notification):
        if when == "showing":
            os.write(1, notification.text.encode())
            os._exit(9)
    async with Client(url, "bob", state=state) as client:
        if when == "showing":
            client.on(Notification, die)
        await client.caught_up()
        if when == "waiting":
            os._exit(9)  # nobody has asked for it
        await asyncio.sleep(30)

asyncio.run(main())
"""


async def die(server: FakeServer, state: Path, when: str) -> str:
    """A client that is killed; gives what it showed."""
    command = [sys.executable, "-c", CHILD, server.url, str(state), when]
    child = await asyncio.to_thread(subprocess.run, command, env=dict(os.environ), check=False, capture_output=True, text=True)
    assert child.returncode == 9, child.stderr
    return child.stdout


async def test_a_client_killed_between_receipt_and_showing_shows_it_after_restart(server: FakeServer, tmp_path: Path) -> None:
    state = tmp_path / "bob.sqlite"
    server.announce(notification(1))
    assert await die(server, state, "waiting") == ""
    server.connect_status = 503
    async with Client(server.url, "bob", state=state) as client:
        assert await shown(client, 1) == ["1"]


async def test_a_client_killed_while_showing_does_not_show_it_again(server: FakeServer, tmp_path: Path) -> None:
    state = tmp_path / "bob.sqlite"
    server.announce(notification(1))
    assert await die(server, state, "showing") == "1"
    server.acknowledged.clear()
    async with Client(server.url, "bob", state=state) as client:
        await server.until(lambda: acknowledgements(server, 1) == 1)
        server.announce(notification(2))
        assert await shown(client, 1) == ["2"]


async def test_only_what_is_durable_is_acknowledged(server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidings_client.connection.STATE_RETRY_SECONDS", 0.05)
    full, keep = True, State.apply

    def apply(state: State, changes: Changes) -> None:
        if full:
            raise StateFileError("the disk is full")
        keep(state, changes)

    async with Client(server.url, "bob", state=tmp_path / "bob.sqlite") as client:
        await client.caught_up()
        monkeypatch.setattr(State, "apply", apply)
        for _ in range(3):  # each connection brings it, and can't keep it
            hellos = len(server.hellos)
            server.announce(notification(1))
            await server.until(lambda known=hellos: len(server.hellos) > known)  # type: ignore[misc]
        assert server.acknowledged == []
        full = False
        assert await shown(client, 1) == ["1"]
        await server.until(lambda: acknowledgements(server, 1) >= 1)


async def test_a_state_that_cannot_even_be_read_is_tried_again(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidings_client.connection.STATE_RETRY_SECONDS", 0.05)
    broken, tries = asyncio.Event(), 0

    def fail(*_: object) -> None:
        nonlocal tries
        tries += 1
        if tries == 4:
            broken.set()
        raise StateFileError("the disk is gone")

    async with Client(server.url, "bob", state=tmp_path / "bob.sqlite") as client:
        await client.caught_up()
        with monkeypatch.context() as patch:
            patch.setattr(State, "apply", fail)
            patch.setattr(State, "outgoing", fail)
            server.announce(notification(1))
            await asyncio.wait_for(broken.wait(), 5.0)
        assert await asyncio.wait_for(shown(client, 1), 5.0) == ["1"]


async def test_it_is_on_disk_before_it_is_acknowledged(server: FakeServer, tmp_path: Path) -> None:
    state = tmp_path / "bob.sqlite"
    found: list[list[tuple[str]]] = []

    def look(frame: pb.ClientFrame) -> bool:
        if frame.HasField("acknowledge_notification"):
            found.append(_copy_of(state, tmp_path))
        return False

    server.silence = look
    async with Client(server.url, "bob", state=state) as client:
        await client.caught_up()
        server.announce(notification(1))
        await server.until(lambda: bool(found))
    assert found[0] == [(name_of(1),)]


def _copy_of(state: Path, folder: Path) -> list[tuple[str]]:
    """The notifications in a state file as a crash right now would leave it."""
    copy = folder / f"copy-{next(_numbers)}.sqlite"
    copy.write_bytes(state.read_bytes())
    copy.with_name(copy.name + "-wal").write_bytes(state.with_name(state.name + "-wal").read_bytes())
    database = sqlite3.connect(copy)
    rows = database.execute("SELECT notification_id FROM notification").fetchall()
    database.close()
    return rows


# ---- expiry


async def test_what_has_expired_is_neither_shown_nor_acknowledged(server: FakeServer, bob: Client) -> None:
    server.announce(notification(1, expires_in=-1), notification(2))
    assert await shown(bob, 1) == ["2"]
    await server.until(lambda: acknowledgements(server, 2) == 1)
    assert acknowledgements(server, 1) == 0


@pytest.mark.parametrize("offset", [3600.0, -3600.0])
async def test_expiry_goes_by_the_servers_clock(server: FakeServer, offset: float) -> None:
    server.clock_offset = offset
    async with Client(server.url, "bob") as client:
        await client.caught_up()
        server.announce(
            notification(1, expires_in=-60, clock_offset=offset),
            notification(2, expires_in=60, clock_offset=offset),
        )
        assert await shown(client, 1) == ["2"]
        await server.until(lambda: acknowledgements(server, 2) == 1)
        assert acknowledgements(server, 1) == 0


async def test_the_servers_clock_is_known_after_a_restart(server: FakeServer, tmp_path: Path) -> None:
    server.clock_offset, state = 3600.0, tmp_path / "bob.sqlite"
    async with Client(server.url, "bob", state=state) as client:
        await client.caught_up()
        server.announce(notification(1, expires_in=0.3, clock_offset=3600), notification(2, clock_offset=3600))
        await server.until(lambda: acknowledgements(server, 2) == 1)
    void = time.time() + 0.4
    server.connect_status = 503
    async with Client(server.url, "bob", state=state) as client:
        await asyncio.sleep(max(0.0, void - time.time()))  # it is time itself that is tested
        assert await shown(client, 1) == ["2"]


async def test_a_clock_put_right_lets_a_waiting_one_be_shown(server: FakeServer, tmp_path: Path) -> None:
    state = tmp_path / "bob.sqlite"
    async with Client(server.url, "bob", state=state) as client:
        await client.caught_up()
        server.announce(notification(1))
        await server.until(lambda: acknowledgements(server, 1) == 1)
        server.clock_offset = 3600.0
        server.cut()
        await server.until(lambda: len(server.hellos) == 2)
        await client.caught_up()
        server.announce(notification(2, clock_offset=3600.0))
        assert await shown(client, 1) == ["2"], "the first one has expired, for all we know"
        server.clock_offset = 0.0
        server.cut()
        assert await shown(client, 1) == ["1"]


async def test_a_server_that_does_not_tell_its_time_is_taken_to_have_ours(server: FakeServer) -> None:
    server.clock_offset = math.nan
    async with Client(server.url, "bob") as client:
        await client.caught_up()
        server.announce(notification(1, expires_in=-1), notification(2))
        assert await shown(client, 1) == ["2"]


# ---- what can't be right, and too much


async def test_malformed_ones_are_ignored_and_logged(server: FakeServer, bob: Client, caplog: pytest.LogCaptureFixture) -> None:
    nameless, foreign, timeless = notification(1), notification(2), notification(3)
    nameless.notification_id, foreign.notification_id = "", "N-0001"
    timeless.expire_time.seconds = 10**15
    for one in (nameless, foreign, timeless):
        server.tell(pb.ServerFrame(notification=one))
    server.announce(notification(4))
    assert await shown(bob, 1) == ["4"]
    await server.until(lambda: server.acknowledged == [(name_of(4),)])
    assert [record.levelname for record in caplog.records if "was ignored" in record.message] == ["WARNING"] * 3
    assert bob.state is ConnectionState.CAUGHT_UP


async def test_past_a_bound_they_are_left_to_the_server(
    server: FakeServer, bob: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tidings_client.notifications.MAX_WAITING", 3)
    server.announce(*(notification(number) for number in range(5)))
    await server.until(lambda: sum(len(names) for names in server.acknowledged) == 3)
    assert "3 notifications wait to be shown" in caplog.text
    assert await shown(bob, 3) == ["0", "1", "2"]
    server.cut()
    await until_state(bob, ConnectionState.CAUGHT_UP)
    assert sorted(await shown(bob, 2)) == ["3", "4"]
    await server.until(lambda: sum(len(names) for names in server.acknowledged) == 5)


async def test_callbacks_go_on_once_the_state_file_can_be_written_again(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidings_client.callbacks.STATE_RETRY_SECONDS", 0.01)
    failures, show = itertools.count(), State.show_notification

    def fail_twice(state: State, now: int) -> pb.Notification | None:
        if next(failures) < 2:
            raise StateFileError("the disk is full")
        return show(state, now)

    monkeypatch.setattr(State, "show_notification", fail_twice)
    seen: asyncio.Queue[str] = asyncio.Queue()
    async with Client(server.url, "bob") as client:
        client.on(Notification, lambda one: seen.put_nowait(one.text))
        await client.caught_up()
        server.announce(notification(1))
        assert await asyncio.wait_for(seen.get(), TIMEOUT) == "1"
