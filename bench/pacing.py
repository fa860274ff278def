"""Open loop: messages are due at fixed times, whatever became of the ones before.

The kernel's timer descriptor wakes the loop to the microsecond; the loop's own timers round to whole milliseconds, which would be a
good part of the latencies measured here.
"""

import asyncio
import ctypes
import os
import time
from collections.abc import Callable

TICK_SECONDS = 0.0002  # messages due closer together than this go out together; their latency counts from when each was due

_libc = ctypes.CDLL(None, use_errno=True)
_CLOCK_MONOTONIC = 1


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _Time), ("value", _Time))


async def pace(rate: float, seconds: float, due: Callable[[float], None]) -> None:
    """Call `due(intended)` for each of rate * seconds messages, at or as soon as possible after its time.

    Args:
        rate: per second.
        seconds: how long.
        due: given the time (of time.monotonic) at which the message should have been sent.

    Raises:
        OSError: the kernel gave no timer.
    """
    descriptor = _libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "timerfd_create")
    try:
        await _run(descriptor, rate, int(rate * seconds), due)
    finally:
        os.close(descriptor)


async def _run(descriptor: int, rate: float, count: int, due: Callable[[float], None]) -> None:
    loop, done = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
    start, sent = time.monotonic() + TICK_SECONDS, 0

    def on_tick() -> None:
        nonlocal sent
        os.read(descriptor, 8)
        ready = min(count, int((time.monotonic() - start) * rate) + 1)
        while sent < ready:
            due(start + sent / rate)
            sent += 1
        if sent >= count:
            done.set_result(None)
        else:
            _arm(descriptor, max(start + sent / rate, time.monotonic() + TICK_SECONDS))

    loop.add_reader(descriptor, on_tick)
    try:
        _arm(descriptor, start)
        await done
    finally:
        loop.remove_reader(descriptor)


def _arm(descriptor: int, when: float) -> None:
    value = _Time(int(when), int(when % 1 * 1e9))
    spec = _TimerSpec(_Time(0, 0), value)
    if _libc.timerfd_settime(descriptor, 1, ctypes.byref(spec), None):  # 1: absolute time
        raise OSError(ctypes.get_errno(), "timerfd_settime")
