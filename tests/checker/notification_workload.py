"""A business at work beside its clients: tags change, notifications go out to random audiences, some are paused or cancelled on
their way, every report is read all the time, and every call is made again with its request_id until it is answered, some once more.

As the chat's workload: everything random comes from one seed. The phases: `open`, `work` (as faults happen), `settle`, `read_back`.
"""

import asyncio
import contextlib
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mesh.process import background
from tests.checker.audience import Tree, draw, text
from tests.checker.caller import RETRY_SECONDS, Caller
from tests.checker.device import Device
from tests.checker.history import Controlled, Mapped, Settled, Uploaded
from tests.checker.notification_view import OVER, NotificationView
from tests.checker.readings import OUTCOMES, Readings
from tests.checker.recorder import Recorder
from tidings.common.v1 import notification_pb2 as common
from tidings.common.v1.content_pb2 import Content, Text
from tidings.scheduler.v1 import scheduler_pb2 as pb
from tidings.tag.v1.tag_pb2 import ApplyMappingRequest, TagChange
from tidings_client.business import Business, BusinessError

_SHORT_SECONDS = 2.5  # until some notifications expire
_LONG_SECONDS = 3600.0
_ROUND_SECONDS = 0.05  # between two readings of all reports
_LATE_SECONDS = 3.0  # by then a late acknowledgement has come, or is lost
_TWICE = 0.3  # share of calls that are made twice at the same moment


@dataclass(frozen=True, slots=True)
class NotificationPlan:
    """How many, and how lively.

    Attributes:
        users: in all; `silent` of them have no device, a quarter of the others have two.
        tags: their number.
        pause: mean seconds between two actions of the business, and between the coming and going of a device.
        steered: of so many notifications one is cancelled, and one paused and resumed.
        least: notifications sent before it is enough, however long that takes on a machine that stands still now and then.
        rates: recipients in a second of which each notification gets one; 0 for no bound.
    """

    users: int = 16
    silent: int = 4
    tags: int = 5
    pause: float = 0.25
    steered: int = 5
    least: int = 14
    rates: tuple[int, ...] = (0, 4, 10)


class NotificationWorkload:
    """See the module.

    Args:
        url: the balancer's.
        token: gives a user's token.
        folder: for the devices' state files.
        business: opens a way of the business; asked twice, and where there are two ways the second one may be another.
        fence: reads a notification's fence, where the judge may look into the store; None where it may not.
    """

    def __init__(
        self,
        url: str,
        token: Callable[[str], str],
        folder: Path,
        business: Callable[[], Business],
        recorder: Recorder,
        rng: random.Random,
        plan: NotificationPlan | None = None,
        fence: Callable[[str], int] | None = None,
    ) -> None:
        self._url, self._token, self._folder, self._open_business = url, token, folder, business
        self._recorder, self._rng, self._plan = recorder, rng, plan or NotificationPlan()
        self._fence = fence
        run = secrets.token_hex(3)
        self.users = [f"{run}-user{number}" for number in range(self._plan.users)]
        self._everybody = f"t{run}_everybody"
        self._tags = [f"t{run}_{number}" for number in range(self._plan.tags)]
        self.devices: list[Device] = []
        self._caller: Caller | None = None
        self._acting: list[asyncio.Task[None]] = []
        self._read = asyncio.Event()
        self._enough = asyncio.Event()
        self._names: list[str] = []
        self._numbers = 0
        self._campaigns = 0
        self._version = 0
        self._offset = time.time() - recorder.now()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Devices are there, users have their first tags."""
        async with self._open_business() as business, self._open_business() as other:
            self._caller = Caller(business, other, self._recorder)
            await self._map(self._everybody, self.users, [])
            for tag in self._tags:
                await self._map(tag, self._rng.sample(self.users, len(self.users) // 2), [])
            for user, name in self._device_names():
                state = self._folder / f"{name.replace('/', '.')}.sqlite"
                self.devices.append(Device(name, user, self._url, self._token(user), state, self._recorder))
            await asyncio.gather(*(device.open() for device in self.devices))
            try:
                async with background(self._read_reports(self._readings)):
                    yield
            finally:
                for task in self._acting:
                    task.cancel()
                await asyncio.gather(*self._acting, return_exceptions=True)
                await asyncio.gather(*(device.finish() for device in self.devices))

    async def work(self, seconds: float) -> None:
        """Everyone acts at random for so long at least."""
        work = [self._come_and_go(device, random.Random(self._rng.random())) for device in self.devices[::2]]
        work += [self._change_tags(random.Random(self._rng.random())), self._notify(random.Random(self._rng.random()))]
        self._acting += [asyncio.create_task(one) for one in work]
        await asyncio.sleep(seconds)
        while self._campaigns < self._plan.least:  # noqa: ASYNC110 (a count that grows by itself)
            await asyncio.sleep(self._plan.pause)
        self._enough.set()

    async def settle(self, timeout: float) -> bool:
        """Wait until every call is answered, and everybody has what they are owed; False when it did not come to that."""
        since = self._recorder.now()
        try:
            async with asyncio.timeout(timeout):
                while self._acting:
                    await self._acting.pop()
                await asyncio.gather(*(device.open() for device in self.devices if device.client is None))
                while self.waiting():
                    await self._read.wait()
        except TimeoutError:
            return False
        finally:
            self._recorder.add(Settled(since, self._recorder.now()))
        return True

    def waiting(self) -> list[str]:
        """The notifications that somebody who is there is still owed, or whose report doesn't tell all of it yet."""
        view, now = NotificationView(self._recorder.history), self._recorder.now()
        there = {user for user, _ in view.reachable()}
        return [name for name in self._names if not _served(view, name, there, now)]

    async def read_back(self) -> None:
        """Repeat every call, read every report once more, and who had which outcome."""
        calls, readings = self._calls, self._readings
        await calls.repeat()
        for name in self._names:
            await calls.insist(partial(readings.report, name))
            for outcome in OUTCOMES:
                await calls.insist(partial(readings.recipients, name, outcome))

    async def announce(self, rate: int) -> str:
        """Send everybody a notification, so many recipients in a second; gives its id. It is left to run."""
        self._numbers += 1
        now, name = self._recorder.now(), f"{self._everybody}-{self._numbers}"
        upload = Uploaded("business", name, ("tag", self._everybody), (), (), rate, now, now + _LONG_SECONDS, now)
        return await self._upload(upload, random.Random(self._numbers))

    def _device_names(self) -> list[tuple[str, str]]:
        talkative = self.users[self._plan.silent :]
        first = [(user, f"{user}/phone") for user in talkative]
        return first + [(user, f"{user}/laptop") for user in talkative[::4]]

    # What the business does

    async def _map(self, tag: str, added: list[str], removed: list[str]) -> None:
        place = self._recorder.add(Mapped("business", tag, tuple(added), tuple(removed), self._recorder.now()))
        change = TagChange(tag=tag, add_user_ids=added, remove_user_ids=removed)
        request = ApplyMappingRequest(tags=[change], create_tags=True)
        attempts = 0

        async def apply() -> int:
            nonlocal attempts
            attempts += 1
            versions = [int(answer.version) async for answer in self._calls.business.tags.ApplyMapping(iter([request]))]
            if not versions:
                raise BusinessError("UNAVAILABLE", "the stream ended without an answer", "", RETRY_SECONDS)
            return versions[-1]

        version = await self._calls.insist(apply)
        earliest = version if attempts == 1 else self._version + 1  # a lost attempt may have been in force before
        self._recorder.complete(place, version=version, earliest=earliest)
        self._version = version

    async def _change_tags(self, rng: random.Random) -> None:
        while await self._pause(rng.expovariate(1 / (self._plan.pause * 3))):
            tag = rng.choice(self._tags)
            some = rng.sample(self.users, 3)
            await self._map(tag, some[:2], some[2:])

    async def _notify(self, rng: random.Random) -> None:
        while await self._pause(rng.expovariate(1 / self._plan.pause)):
            self._acting.append(asyncio.create_task(self._campaign(self._campaigns, random.Random(rng.random()))))
            self._campaigns += 1

    async def _campaign(self, number: int, rng: random.Random) -> None:
        """A notification, and what the business does with it afterwards."""
        name = await self._upload(self._draw_upload(rng), rng)
        if name and number % self._plan.steered == 1:
            await self._cancel(name, rng)
        elif name and number % self._plan.steered == 3:
            await self._pause_and_resume(name, rng)

    async def _upload(self, upload: Uploaded, rng: random.Random) -> str:
        request = pb.UploadNotificationRequest(request_id=upload.request_id, spec=self._spec(upload, rng))
        place = self._recorder.add(upload)
        try:
            answer = await self._calls.change("UploadNotification", request, twice=rng.random() < _TWICE)
        except BusinessError as error:
            self._calls.failed("upload", error)
            self._recorder.complete(place, outcome="refused")
            return ""
        name = str(answer.notification.notification_id)
        self._recorder.complete(place, outcome="taken", notification=name)
        self._names.append(name)
        return name

    def _draw_upload(self, rng: random.Random) -> Uploaded:
        self._numbers += 1
        tree: Tree | None = ("&", ("tag", self._everybody), draw(rng, self._tags, self.users)) if rng.random() < 0.8 else None
        recipients = rng.sample(self.users, rng.randint(1, 4)) if tree is None or rng.random() < 0.2 else []
        excluded = rng.sample(self.users, 2) if rng.random() < 0.2 else []
        rate, now = rng.choice(self._plan.rates), self._recorder.now()
        due = now + rng.choice([0.0, 0.0, 0.5])
        expires = due + (_SHORT_SECONDS if rng.random() < 0.3 else _LONG_SECONDS)
        name = f"{self._everybody}-{self._numbers}"
        return Uploaded("business", name, tree, tuple(recipients), tuple(excluded), rate, due, expires, now)

    def _spec(self, upload: Uploaded, rng: random.Random) -> common.NotificationSpec:
        expression = text(upload.tree) if upload.tree is not None else ""
        spec = common.NotificationSpec(
            audience=common.Audience(recipient_ids=upload.recipients, expression=expression, excluded_ids=upload.excluded),
            content=Content(text=Text(text=f"news {self._numbers}")),
            priority=rng.randint(0, 9),
            rate_per_second=upload.rate or None,
            expand_at=rng.choice([common.EXPAND_AT_SEND, common.EXPAND_AT_UPLOAD]),
            allow_empty_audience=True,
        )
        spec.expire_time.FromNanoseconds(int((self._offset + upload.expires) * 1e9))
        if upload.due > upload.invoked:
            spec.send_time.FromNanoseconds(int((self._offset + upload.due) * 1e9))
        return spec

    async def _cancel(self, name: str, rng: random.Random) -> None:
        await self._pause(rng.random())
        request = pb.CancelNotificationRequest(request_id=f"cancel-{name}", notification_id=name)
        await self._control("cancel", "CancelNotification", request, rng)

    async def _pause_and_resume(self, name: str, rng: random.Random) -> None:
        await self._pause(rng.random())
        pause = pb.PauseNotificationRequest(request_id=f"pause-{name}", notification_id=name)
        await self._control("pause", "PauseNotification", pause, rng)
        await self._pause(rng.random() * 2)
        resume = pb.ResumeNotificationRequest(request_id=f"resume-{name}", notification_id=name)
        await self._control("resume", "ResumeNotification", resume, rng)

    async def _control(self, action: str, method: str, request: Any, rng: random.Random) -> None:
        identity = request.notification_id, action, request.request_id
        place = self._recorder.add(Controlled("business", *identity, self._recorder.now()))
        try:
            answer = await self._calls.change(method, request, twice=rng.random() < _TWICE)
        except BusinessError as error:
            self._recorder.complete(place, outcome="refused")
            if error.reason != "NOTIFICATION_STATE_CONFLICT":
                self._calls.failed(action, error)
            return
        self._recorder.complete(place, outcome="done", sent=int(getattr(answer, "sent", 0)))

    # What is read

    async def _read_reports(self, readings: Readings) -> None:
        """Read all reports, again and again: those that are over may still gain late acknowledgements."""
        while True:
            for name in list(self._names):
                with contextlib.suppress(BusinessError):
                    await readings.report(name)
            self._read.set()
            self._read = asyncio.Event()
            await asyncio.sleep(_ROUND_SECONDS)

    # Shared

    @property
    def _readings(self) -> Readings:
        return Readings(self._calls.business, self._recorder, self._fence)

    @property
    def _calls(self) -> Caller:
        assert self._caller is not None, "the workload is not open"
        return self._caller

    async def _come_and_go(self, device: Device, rng: random.Random) -> None:
        while await self._pause(rng.expovariate(1 / (self._plan.pause * 6))):
            await device.close()
            await asyncio.sleep(rng.expovariate(1 / (self._plan.pause * 2)))
            await device.open()

    async def _pause(self, seconds: float) -> bool:
        """Wait so long, or until it is enough; whether to go on."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._enough.wait(), seconds)
        return not self._enough.is_set()


def _served(view: NotificationView, name: str, there: set[str], now: float) -> bool:
    """Whether those who are there have it, as far as it is sure whom it is for, and the report knows of all who were shown it: what
    it doesn't know a while after it was over it never will, and the judge asks why."""
    last, shown = view.last(name), view.users_shown[name]
    if last is None:
        return False
    if last.state in OVER:
        latest = max((view.last_shown[name, user] for user in shown), default=0.0)
        return last.delivered >= len(shown) or now > latest + _LATE_SECONDS
    if last.delivered < len(shown):
        return False
    audience = view.audience(name)
    return bool(last.expansion) and (audience is None or audience & there <= shown)
