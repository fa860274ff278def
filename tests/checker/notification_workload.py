"""A business at work beside its clients: tags change, notifications go out to random audiences, some are paused or cancelled on
their way, every report is read all the time, and every call is made again with its request_id until it is answered.

As the chat's workload: everything random comes from one seed. The phases: `open`, `work` (as faults happen), `settle`, `read_back`.
"""

import asyncio
import contextlib
import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

from tests.checker.audience import Tree, draw, text
from tests.checker.device import Device
from tests.checker.history import Call, Controlled, Failure, Mapped, Recipients, Reported, Settled, Uploaded
from tests.checker.notification_view import OVER, NotificationView
from tests.checker.recorder import Recorder
from tidings.common.v1 import notification_pb2 as common
from tidings.common.v1.content_pb2 import Content, Text
from tidings.scheduler.v1 import scheduler_pb2 as pb
from tidings.tag.v1.tag_pb2 import ApplyMappingRequest, TagChange
from tidings_client.business import Business, BusinessError

T = TypeVar("T")
OUTCOMES = ("expansion", "sent", "delivered")
_RETRY_SECONDS = 0.2
_SHORT_SECONDS = 2.5  # until some notifications expire
_LONG_SECONDS = 3600.0
_PAGE = 1_000
Call_ = Callable[[], Awaitable[T]]


@dataclass(frozen=True, slots=True)
class NotificationPlan:
    """How many, and how lively.

    Attributes:
        users: in all; `silent` of them have no device, a quarter of the others have two.
        tags: their number.
        pause: mean seconds between two actions of the business, and between the coming and going of a device.
    """

    users: int = 16
    silent: int = 4
    tags: int = 5
    pause: float = 0.25


class NotificationWorkload:
    """See the module.

    Args:
        url: the balancer's.
        token: gives a user's token.
        folder: for the devices' state files.
        business: opens the way of a business.
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
        self._held: dict[str, set[str]] = {tag: set() for tag in self._tags}
        self.devices: list[Device] = []
        self._business: Business | None = None
        self._acting: list[asyncio.Task[None]] = []
        self._reading: asyncio.Task[None] | None = None
        self._enough = asyncio.Event()
        self._names: list[str] = []
        self._numbers = 0
        self._version = 0
        self._offset = time.time() - recorder.now()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Devices are there, users have their first tags."""
        async with self._open_business() as self._business:
            await self._map(self._everybody, self.users, [])
            for tag in self._tags:
                await self._map(tag, self._rng.sample(self.users, len(self.users) // 2), [])
            for user, name in self._device_names():
                state = self._folder / f"{name.replace('/', '.')}.sqlite"
                self.devices.append(Device(name, user, self._url, self._token(user), state, self._recorder))
            await asyncio.gather(*(device.open() for device in self.devices))
            self._reading = asyncio.create_task(self._read_reports())
            try:
                yield
            finally:
                self._reading.cancel()
                await asyncio.gather(self._reading, return_exceptions=True)
                await asyncio.gather(*(device.finish() for device in self.devices))

    async def work(self, seconds: float) -> None:
        """Everyone acts at random for so long."""
        work = [self._come_and_go(device, random.Random(self._rng.random())) for device in self.devices[::2]]
        work += [self._change_tags(random.Random(self._rng.random())), self._notify(random.Random(self._rng.random()))]
        self._acting += [asyncio.create_task(one) for one in work]
        await asyncio.sleep(seconds)
        self._enough.set()

    async def settle(self, timeout: float) -> bool:
        """Wait until every call is answered, and everybody has what they are owed; False when it did not come to that."""
        since = self._recorder.now()
        async with asyncio.timeout(timeout):
            await asyncio.gather(*self._acting)
        await asyncio.gather(*(device.open() for device in self.devices if device.client is None))
        done = await self._recorder.wait_for(self._nobody_waits, timeout)
        self._recorder.add(Settled(since, self._recorder.now()))
        return done

    async def read_back(self) -> None:
        """Read every report once more, and who had which outcome."""
        for name in self._names:
            await self._read_report(name)
            for outcome in OUTCOMES:
                users = await self._insist(lambda name=name, outcome=outcome: self._recipients(name, outcome))  # type: ignore[misc]
                self._recorder.add(Recipients("business", name, outcome, tuple(users), self._recorder.now()))

    def _nobody_waits(self) -> bool:
        view = NotificationView(self._recorder.history)
        there = {user for user, _ in view.reachable()}
        return all(self._served(view, name, there) for name in self._names)

    @staticmethod
    def _served(view: NotificationView, name: str, there: set[str]) -> bool:
        last, audience = view.last(name), view.audience(name)
        if last is None:
            return False
        if last.state in OVER:
            return last.delivered >= len(view.users_shown[name])  # the last acknowledgements have been counted
        owed = (audience or set()) & there
        return audience is not None and owed <= view.users_shown[name] and last.delivered >= len(owed)

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
            async for answer in self._open().tags.ApplyMapping(iter([request])):
                return int(answer.version)
            raise BusinessError("UNAVAILABLE", "the stream ended without an answer", "", _RETRY_SECONDS)

        version = await self._insist(apply)
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
            name = await self._upload(rng)
            if name and rng.random() < 0.4:
                steer = rng.choice([self._cancel, self._pause_and_resume])
                self._acting.append(asyncio.create_task(steer(name, random.Random(rng.random()))))

    async def _upload(self, rng: random.Random) -> str:
        self._numbers += 1
        tree: Tree | None = ("&", ("tag", self._everybody), draw(rng, self._tags, self.users)) if rng.random() < 0.8 else None
        recipients = rng.sample(self.users, rng.randint(1, 4)) if tree is None or rng.random() < 0.2 else []
        excluded = rng.sample(self.users, 2) if rng.random() < 0.2 else []
        rate, now = rng.choice([0, 0, 5, 20]), self._recorder.now()
        due = now + rng.choice([0.0, 0.0, 0.5])
        expires = due + (_SHORT_SECONDS if rng.random() < 0.3 else _LONG_SECONDS)
        spec = common.NotificationSpec(
            audience=common.Audience(
                recipient_ids=recipients, expression=text(tree) if tree is not None else "", excluded_ids=excluded
            ),
            content=Content(text=Text(text=f"news {self._numbers}")),
            priority=rng.randint(0, 9),
            rate_per_second=rate or None,
            expand_at=rng.choice([common.EXPAND_AT_SEND, common.EXPAND_AT_UPLOAD]),
            allow_empty_audience=True,
        )
        spec.expire_time.FromNanoseconds(int((self._offset + expires) * 1e9))
        if due > now:
            spec.send_time.FromNanoseconds(int((self._offset + due) * 1e9))
        request = pb.UploadNotificationRequest(request_id=f"{self._everybody}-{self._numbers}", spec=spec)
        place = self._recorder.add(
            Uploaded("business", request.request_id, tree, tuple(recipients), tuple(excluded), rate, due, expires, now)
        )
        answers = [await self._once(request)]
        if rng.random() < 0.3:
            answers.append(await self._once(request))
        name = answers[0]
        self._recorder.complete(place, outcome="taken" if name else "refused", notification=name)
        if name:
            self._names.append(name)
        return name

    async def _once(self, request: pb.UploadNotificationRequest) -> str:
        """Upload, insisting; one record of the call and its answer, for repetitions to be compared."""
        invoked, body = self._recorder.now(), blake2b(request.SerializeToString(deterministic=True)).hexdigest()
        try:
            answer = await self._insist(lambda: self._open().notifications.UploadNotification(request))
        except BusinessError as error:
            self._failed("upload", error)
            return ""
        told = blake2b(answer.SerializeToString(deterministic=True)).hexdigest()
        call = Call("business", "business", "upload", request.request_id, body, told, invoked, self._recorder.now())
        self._recorder.add(call)
        return str(answer.notification.notification_id)

    async def _cancel(self, name: str, rng: random.Random) -> None:
        await asyncio.sleep(rng.random())
        request = pb.CancelNotificationRequest(request_id=f"cancel-{name}", notification_id=name)
        await self._control(name, "cancel", request.request_id, lambda: self._open().notifications.CancelNotification(request))

    async def _pause_and_resume(self, name: str, rng: random.Random) -> None:
        await asyncio.sleep(rng.random())
        pause = pb.PauseNotificationRequest(request_id=f"pause-{name}", notification_id=name)
        await self._control(name, "pause", pause.request_id, lambda: self._open().notifications.PauseNotification(pause))
        await asyncio.sleep(rng.random() * 2)
        resume = pb.ResumeNotificationRequest(request_id=f"resume-{name}", notification_id=name)
        await self._control(name, "resume", resume.request_id, lambda: self._open().notifications.ResumeNotification(resume))

    async def _control(self, name: str, action: str, request_id: str, call: Call_[Any]) -> None:
        place = self._recorder.add(Controlled("business", name, action, request_id, self._recorder.now()))
        try:
            answer = await self._insist(call)
        except BusinessError as error:
            self._recorder.complete(place, outcome="refused")
            if error.reason != "NOTIFICATION_STATE_CONFLICT":
                self._failed(action, error)
            return
        self._recorder.complete(place, outcome="done", sent=int(getattr(answer, "sent", 0)))

    # What is read

    async def _read_reports(self) -> None:
        """Read all reports that may still change, again and again."""
        over: set[str] = set()
        while True:
            for name in [one for one in self._names if one not in over]:
                with contextlib.suppress(BusinessError):
                    report = await self._read_report(name)
                    if report in OVER and self._enough.is_set():
                        over.add(name)
            await asyncio.sleep(0.05)

    async def _read_report(self, name: str) -> str:
        invoked, fence = self._recorder.now(), self._fence(name) if self._fence is not None else 0
        answer = await self._open().notifications.GetNotification(pb.GetNotificationRequest(notification_id=name))
        found, now = answer.notification.report, self._recorder.now()
        state = common.NotificationState.Name(found.state).removeprefix("NOTIFICATION_STATE_")
        numbers = (found.expansion, found.sent, found.delivered, found.pending, found.failed, found.expired, found.cancelled)
        self._recorder.add(Reported("business", name, state, *numbers, found.snapshot_version, invoked, now, fence))
        return state

    async def _recipients(self, name: str, outcome: str) -> list[str]:
        found: list[str] = []
        token = ""
        while True:
            request = pb.ListRecipientsRequest(
                notification_id=name, outcome=common.Outcome.Value(f"OUTCOME_{outcome.upper()}"), page_size=_PAGE, page_token=token
            )
            page = await self._open().notifications.ListRecipients(request)
            found += page.user_ids
            if not (token := page.next_page_token):
                return found

    # Shared

    def _open(self) -> Business:
        assert self._business is not None, "the workload is not open"
        return self._business

    async def _insist(self, call: Call_[T]) -> T:
        """Make a call until it is answered, or refused for good."""
        while True:
            try:
                return await call()
            except BusinessError as error:
                if error.retry_after is None:
                    raise
                await asyncio.sleep(min(error.retry_after, _RETRY_SECONDS))

    async def _come_and_go(self, device: Device, rng: random.Random) -> None:
        while await self._pause(rng.expovariate(1 / (self._plan.pause * 6))):
            await device.close()
            await asyncio.sleep(rng.expovariate(1 / (self._plan.pause * 2)))
            await device.open()

    async def _pause(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._enough.wait(), seconds)
        return not self._enough.is_set()

    def _failed(self, action: str, error: BusinessError) -> None:
        failure = Failure("business", action, error.reason, error.retry_after, error.message, self._recorder.now())
        self._recorder.add(failure)
