"""A business' day, as its people would check it: tags come from a CSV file, notifications go to those they are meant for and to
nobody else, also later and not too late, and what is cancelled stops where it says.
"""

import asyncio
import csv
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from cli import tag_import
from mesh.patience import delays
from tests.system.mesh_fixture import Mesh, run_mesh
from tidings.common.v1 import notification_pb2 as common
from tidings.common.v1.content_pb2 import Content, Text
from tidings.scheduler.v1 import scheduler_pb2 as pb
from tidings_client import Client, Notification
from tidings_client.business import Business, new_request_id

USERS, ONLINE = 2_000, 60
TAGS = ("vip", "beta", "churned", "north", "south", "east", "west", "trial", "staff", "press")
WAIT_SECONDS = 20.0
SOON_SECONDS = 1.5


class Town:
    """Users with random tags, some of them online, and what their devices show."""

    def __init__(self, mesh: Mesh, business: Business, rng: random.Random) -> None:
        self._mesh, self._business = mesh, business
        self._stack = AsyncExitStack()
        self._changed = asyncio.Condition()
        self.users = [f"user{number}" for number in range(USERS)]
        self.tags = {tag: set(rng.sample(self.users, rng.randint(200, 1_000))) for tag in TAGS}
        self.online = set(rng.sample(self.users, ONLINE))
        self.shown: list[tuple[str, str]] = []  # (notification, user), as it happened

    async def __aenter__(self) -> "Town":
        await asyncio.gather(*(self.connect(user) for user in self.online))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def connect(self, user: str) -> None:
        """A device of this user comes online."""
        client = Client(self._mesh.url, self._mesh.token(user), user_id=user)
        client.on(Notification, lambda one: self._on_shown(one, user))
        await self._stack.enter_async_context(client)
        await client.caught_up(WAIT_SECONDS)

    async def upload(self, audience: common.Audience, rate: int | None = None, expires: float = 3_600.0) -> str:
        """Send a notification now; gives its id.

        Args:
            expires: seconds from now.
        """
        content = Content(text=Text(text="news"))
        spec = common.NotificationSpec(audience=audience, content=content, rate_per_second=rate)
        spec.expire_time.FromNanoseconds(int((time.time() + expires) * 1e9))
        request = pb.UploadNotificationRequest(request_id=new_request_id(), spec=spec)
        return str((await self._business.notifications.UploadNotification(request)).notification.notification_id)

    async def cancel(self, name: str) -> int:
        """End a notification; gives how many had been sent it."""
        request = pb.CancelNotificationRequest(request_id=new_request_id(), notification_id=name)
        return int((await self._business.notifications.CancelNotification(request)).sent)

    async def report(self, name: str, until: Callable[[common.NotificationReport], bool]) -> common.NotificationReport:
        """The first report of which `until` holds; every one before it must add up as well."""
        request = pb.GetNotificationRequest(notification_id=name)
        async with asyncio.timeout(WAIT_SECONDS):
            for delay in delays():
                found = (await self._business.notifications.GetNotification(request)).notification.report
                parts = found.delivered + found.pending + found.failed + found.expired + found.cancelled
                assert parts == found.expansion
                if until(found):
                    return found
                await asyncio.sleep(delay)
        raise AssertionError("delays never end")

    async def recipients(self, name: str, outcome: common.Outcome.ValueType) -> set[str]:
        """Who has an outcome."""
        request = pb.ListRecipientsRequest(notification_id=name, outcome=outcome, page_size=10_000)
        return set((await self._business.notifications.ListRecipients(request)).user_ids)

    async def everybody_shown(self, name: str, users: set[str]) -> None:
        """Wait until these have been shown it; nobody else, and nobody twice."""
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(lambda: self.users_shown(name) >= users), WAIT_SECONDS)
        assert sorted(user for shown, user in self.shown if shown == name) == sorted(users)

    def users_shown(self, name: str) -> set[str]:
        """Who has been shown it."""
        return {user for shown, user in self.shown if shown == name}

    async def _on_shown(self, one: Notification, user: str) -> None:
        async with self._changed:
            self.shown.append((one.notification_id, user))
            self._changed.notify_all()


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    rng = random.Random(7)
    async with run_mesh(tmp_path, rng) as mesh, mesh.business() as business:
        town = Town(mesh, business, rng)
        path = tmp_path / "people.csv"
        with path.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["user_id", "tags"])
            rows.writerows((user, ";".join(tag for tag in TAGS if user in town.tags[tag])) for user in town.users)
        imported = await tag_import.send(business, path, lambda count: None)
        assert (imported.rows, imported.memberships) == (USERS, sum(map(len, town.tags.values())))
        async with town:
            yield town


async def test_a_campaign_reaches_exactly_its_audience(town: Town) -> None:
    first = await town.upload(common.Audience(expression="beta & north"))
    has_first = town.tags["beta"] & town.tags["north"] & town.online
    await town.report(first, lambda one: one.delivered == len(has_first))
    await town.everybody_shown(first, has_first)

    second = await town.upload(common.Audience(expression=f"vip + (beta & !churned) - delivered({first})"))
    audience = (town.tags["vip"] | (town.tags["beta"] - town.tags["churned"])) - has_first
    reached = audience & town.online
    assert 10 < len(reached) < ONLINE - 10
    done = await town.report(second, lambda one: one.delivered == len(reached))
    assert (done.expansion, done.sent, done.pending) == (len(audience), len(reached), len(audience - reached))
    assert await town.recipients(second, common.OUTCOME_EXPANSION) == audience
    assert await town.recipients(second, common.OUTCOME_DELIVERED) == reached
    await town.everybody_shown(second, reached)

    last = await town.upload(
        common.Audience(recipient_ids=sorted(town.online))
    )  # whatever went astray before would be there by now
    await town.everybody_shown(last, town.online)
    assert (town.users_shown(first), town.users_shown(second)) == (has_first, reached)


async def test_a_cancel_stops_where_it_says(town: Town) -> None:
    name = await town.upload(common.Audience(recipient_ids=sorted(town.online)), rate=10)
    await town.report(name, lambda one: one.sent >= 10)
    sent = await town.cancel(name)
    assert 10 <= sent < ONLINE
    final = await town.report(name, lambda one: one.delivered == sent)
    assert (final.state, final.sent) == (common.NOTIFICATION_STATE_CANCELLED, sent)
    assert (final.delivered, final.cancelled) == (sent, ONLINE - sent)
    await town.everybody_shown(name, await town.recipients(name, common.OUTCOME_SENT))

    after = await town.upload(common.Audience(recipient_ids=sorted(town.online)))
    await town.everybody_shown(after, town.online)
    assert len(town.users_shown(name)) == sent


async def test_who_comes_later_gets_what_still_holds(town: Town) -> None:
    late = next(user for user in town.users if user not in town.online)
    there = min(town.online)
    void = await town.upload(common.Audience(recipient_ids=[late]), expires=SOON_SECONDS)
    half_void = await town.upload(common.Audience(recipient_ids=[late, there]), expires=SOON_SECONDS)
    holds = await town.upload(common.Audience(recipient_ids=[late]))
    ended = await town.report(void, lambda one: one.state == common.NOTIFICATION_STATE_EXPIRED)
    assert (ended.sent, ended.expired) == (0, 1)
    ended = await town.report(half_void, lambda one: one.state == common.NOTIFICATION_STATE_COMPLETED)
    assert (ended.delivered, ended.expired) == (1, 1)
    waiting = await town.report(holds, lambda one: one.expansion == 1)
    assert (waiting.sent, waiting.pending) == (0, 1)

    await town.connect(late)
    await town.everybody_shown(holds, {late})
    done = await town.report(holds, lambda one: one.state == common.NOTIFICATION_STATE_COMPLETED)
    assert (done.delivered, done.pending) == (1, 0)
    after = await town.upload(common.Audience(recipient_ids=[late]))
    await town.everybody_shown(after, {late})
    assert (town.users_shown(void), town.users_shown(half_void)) == (set(), {there})
