"""Makes the calls of a business: each until it is answered, and what changes something again and again as it was, for G17.

A repetition may go another way (another scheduler, where there are several), at the same moment as the first, or long after it.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from typing import Any, TypeVar

from google.protobuf.message import Message

from tests.checker.history import Call, Failure
from tests.checker.recorder import Recorder
from tidings_client.business import Business, BusinessError

T = TypeVar("T")
RETRY_SECONDS = 0.2


class Caller:
    """See the module.

    Args:
        business: where calls go.
        other: where repetitions go.
    """

    def __init__(self, business: Business, other: Business, recorder: Recorder) -> None:
        self.business = business
        self._other = other
        self._recorder = recorder
        self._answered: list[tuple[str, Any]] = []

    async def change(self, method: str, request: Any, *, twice: bool = False) -> Any:
        """Call a method of the notifications' service that changes something.

        Args:
            twice: make the same call both ways at the same moment.

        Raises:
            BusinessError: it was refused for good.
        """
        ways = [self.business, self._other] if twice else [self.business]
        answers = await asyncio.gather(*(self._once(way, method, request) for way in ways), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        self._answered.append((method, request))
        return answers[0]

    async def repeat(self) -> None:
        """Make every call that was answered once more; a refusal now is another answer."""
        for method, request in list(self._answered):
            with contextlib.suppress(BusinessError):
                await self._once(self._other, method, request)

    async def insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call until it is answered.

        Raises:
            BusinessError: it was refused for good.
        """
        while True:
            try:
                return await call()
            except BusinessError as error:
                if error.retry_after is None:
                    raise
                await asyncio.sleep(min(error.retry_after, RETRY_SECONDS))

    def failed(self, action: str, error: BusinessError) -> None:
        """Record a refusal."""
        failure = Failure("business", action, error.reason, error.retry_after, error.message, self._recorder.now())
        self._recorder.add(failure)

    async def _once(self, way: Business, method: str, request: Any) -> Any:
        invoked = self._recorder.now()
        try:
            answer = await self.insist(lambda: getattr(way.notifications, method)(request))
        except BusinessError as error:
            self._record(method, request, f"refused: {error.reason}", invoked)
            raise
        self._record(method, request, _digest(answer), invoked)
        return answer

    def _record(self, method: str, request: Any, answer: str, invoked: float) -> None:
        identity = method, request.request_id, _digest(request)
        self._recorder.add(Call("business", "business", *identity, answer, invoked, self._recorder.now()))


def _digest(message: Message) -> str:
    return blake2b(message.SerializeToString(deterministic=True), digest_size=16).hexdigest()
