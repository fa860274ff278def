"""What a device keeps of notifications, for how long, and what it makes of each that comes."""

import sqlite3
from pathlib import Path

import pytest

from tidings.client.v1 import frames_pb2 as pb
from tidings_client import state_schema
from tidings_client.acknowledgements import INTERVAL, MAX_NOTIFICATIONS, NotificationAcknowledgements
from tidings_client.notifications import LONGEST_LIFE, NotificationInbox, ServerClock
from tidings_client.showing import Showing
from tidings_client.state import KEPT_AFTER_EXPIRY, Changes, ReceivedNotification, State

ID = "n" + "a" * 26
OTHER = "n" + "b" * 26
HOUR = 3_600_000


def received(name: str, at: int, expires: int) -> ReceivedNotification:
    notification = pb.Notification(notification_id=name, type="news")
    notification.content.text.text = name
    notification.expire_time.FromMilliseconds(expires)
    return ReceivedNotification(notification, at, expires)


def keep(state: State, *notifications: ReceivedNotification) -> None:
    state.apply(Changes(notifications=list(notifications)))


class Device:
    """An inbox, its state in memory, and a clock that the test turns."""

    def __init__(self, path: Path | None = None) -> None:
        self.now = 1_000_000.0
        self.state = State(path)
        self.arrivals = 0
        self.clock = ServerClock(self.state, lambda: self.now)
        self.inbox = NotificationInbox(self.state, self.clock, self._on_arrival)

    def _on_arrival(self) -> None:
        self.arrivals += 1

    def receive(self, *notifications: pb.Notification) -> None:
        for one in notifications:
            self.inbox.on_notification(one)
        self.state.apply(Changes(notifications=self.inbox.take()))
        self.inbox.on_kept()

    def acknowledged(self) -> list[str]:
        frames = self.inbox.acknowledgements.take_all(0.0)
        return [name for frame in frames for name in frame.acknowledge_notification.notification_ids]

    def made(self, name: str, expires_in: float = 60.0) -> pb.Notification:
        notification = pb.Notification(notification_id=name)
        notification.expire_time.FromMilliseconds(int((self.now + expires_in) * 1000))
        return notification


def test_a_state_of_the_version_before_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.sqlite"
    with monkeypatch.context() as patch:
        patch.setattr(state_schema, "MIGRATIONS", state_schema.MIGRATIONS[:1])
        old = State(path)
        old.set_identity("user_id", "bob")
        old.insert_outgoing("one", "alice", pb.ClientFrame())
        old.apply(Changes(positions={"c": 7}))
        old.close()
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA user_version").fetchone() == (1,)
    assert database.execute("SELECT name FROM sqlite_master WHERE name LIKE 'notification%'").fetchall() == []
    database.close()
    state = State(path)
    assert state.identity("user_id") == "bob"
    assert [record.client_msg_id for record in state.outgoing()] == ["one"]
    assert state.position("c") == 7
    keep(state, received(ID, 0, HOUR))
    assert state.show_notification(1) is not None
    state.close()
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA user_version").fetchone() == (2,)
    database.close()


def test_what_is_kept_survives_a_restart_and_what_was_shown_stays_shown(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    state = State(path)
    keep(state, received(ID, 5, HOUR), received(OTHER, 5, HOUR))
    first = state.show_notification(10)
    assert first is not None
    assert first.content.text.text == ID
    state.close()
    state = State(path)
    assert state.notification(ID) == (HOUR, True)
    assert state.notification(OTHER) == (HOUR, False)
    assert state.notification("n" + "c" * 26) is None
    assert state.waiting_notifications(10) == 1
    second = state.show_notification(10)
    assert second is not None
    assert second.content.text.text == OTHER
    assert state.show_notification(10) is None
    state.close()


def test_notifications_outlast_a_power_failure() -> None:
    assert Changes(notifications=[received(ID, 0, HOUR)]).must_last


def test_what_is_kept_twice_is_kept_once() -> None:
    state = State(None)
    keep(state, received(ID, 0, HOUR))
    assert state.show_notification(1) is not None
    keep(state, received(ID, 2, 2 * HOUR))
    assert state.show_notification(3) is None
    state.close()


def test_what_has_expired_is_not_shown_from_that_moment_on() -> None:
    state = State(None)
    keep(state, received(ID, 0, HOUR))
    assert state.show_notification(HOUR) is None
    assert state.waiting_notifications(HOUR) == 0
    assert state.show_notification(HOUR - 1) is not None
    state.close()


async def test_what_expires_while_the_disk_takes_its_time_is_not_given_out(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device()
    device.receive(device.made(ID, expires_in=1), device.made(OTHER, expires_in=60))
    showing, show = Showing(device.state, device.clock), device.state.show_notification

    def slowly(now: int) -> pb.Notification | None:
        shown = show(now)
        device.now += 2
        return shown

    monkeypatch.setattr(device.state, "show_notification", slowly)
    given = await showing.next()
    assert given is not None
    assert given.notification_id == OTHER


def test_ids_are_forgotten_some_time_after_their_expiry() -> None:
    state = State(None)
    keep(state, received(ID, 0, HOUR))
    state.show_notification(1)
    keep(state, received(OTHER, HOUR + KEPT_AFTER_EXPIRY, 2**40))
    assert state.notification(ID) is not None
    keep(state, received("n" + "c" * 26, HOUR + KEPT_AFTER_EXPIRY + 1, 2**40))
    assert state.notification(ID) is None
    assert state.notification(OTHER) is not None
    state.close()


def test_of_those_shown_only_the_newest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidings_client.state.KEPT_NOTIFICATIONS", 3)
    state = State(None)
    names = ["n" + letter * 26 for letter in "abcdef"]
    keep(state, received(names[0], 0, HOUR), received(names[1], 0, HOUR))
    state.show_notification(1)
    for name in names[2:]:
        keep(state, received(name, 0, HOUR))
    known = [name for name in names if state.notification(name) is not None]
    assert known == names[1:], "the first was shown; the second still waits"
    state.close()


def test_nothing_is_acknowledged_or_told_before_it_is_kept() -> None:
    device = Device()
    device.inbox.on_notification(device.made(ID))
    assert device.acknowledged() == []
    assert device.arrivals == 0
    device.state.apply(Changes(notifications=device.inbox.take()))
    device.inbox.on_kept()
    assert device.acknowledged() == [ID]
    assert device.arrivals == 1


def test_what_could_not_be_kept_is_forgotten_and_comes_again() -> None:
    device = Device()
    device.inbox.on_notification(device.made(ID))
    device.inbox.on_disconnected()
    device.inbox.on_kept()
    assert device.acknowledged() == []
    device.receive(device.made(ID))
    assert device.acknowledged() == [ID]


def test_a_repeat_is_acknowledged_also_long_after_it_was_shown_and_kept_once() -> None:
    device = Device()
    device.receive(device.made(ID), device.made(ID))
    assert device.acknowledged() == [ID]
    assert device.state.show_notification(device.clock.now()) is not None
    again = device.made(ID)
    device.now += 7_200.0
    device.receive(again)
    assert device.acknowledged() == [ID], "it was shown in time, whenever the repeat comes"
    assert device.state.show_notification(device.clock.now()) is None


def test_one_that_expired_while_it_waited_is_neither_shown_nor_acknowledged_again() -> None:
    device = Device()
    waiting = device.made(ID)
    device.receive(waiting)
    assert device.acknowledged() == [ID]
    device.now += 60.0
    device.receive(waiting)
    assert device.acknowledged() == []
    assert device.state.show_notification(device.clock.now()) is None


def test_one_without_an_expiry_lives_as_long_as_any() -> None:
    device = Device()
    device.receive(pb.Notification(notification_id=ID))
    assert device.state.notification(ID) == (device.clock.now() + LONGEST_LIFE, False)


def test_the_clock_is_the_servers_and_is_known_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    device = Device(path)
    welcome = pb.Welcome()
    welcome.server_time.FromMilliseconds(int((device.now - 500) * 1000))
    device.inbox.on_welcome(welcome)
    assert device.clock.now() == int((device.now - 500) * 1000)
    device.state.close()
    restarted = Device(path)
    restarted.now += 10
    assert restarted.clock.now() == int((restarted.now - 500) * 1000)
    restarted.inbox.on_welcome(pb.Welcome())
    assert restarted.clock.now() == int((restarted.now - 500) * 1000), "a Welcome without a time changes nothing"
    restarted.state.close()


def test_a_lone_acknowledgement_goes_at_once_and_many_go_together() -> None:
    acknowledgements = NotificationAcknowledgements()
    acknowledgements.add(ID)
    assert len(acknowledgements.take(0.0)) == 1
    for number in range(MAX_NOTIFICATIONS + 1):
        acknowledgements.add(f"{ID}{number}")
        acknowledgements.add(f"{ID}{number}")
    assert acknowledgements.take(INTERVAL / 2) == []
    assert acknowledgements.deadline() == INTERVAL
    first, second = acknowledgements.take(INTERVAL)
    assert len(first.acknowledge_notification.notification_ids) == MAX_NOTIFICATIONS
    assert len(second.acknowledge_notification.notification_ids) == 1
    assert acknowledgements.deadline() is None
