"""Times as the services keep them, microseconds since 1970, and as the contracts have them."""

import time

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

MICROSECOND = 1_000  # nanoseconds
SECOND = 1_000_000
MINUTE = 60 * SECOND
DAY = 24 * 3600 * SECOND


def clock() -> int:
    """Now."""
    return time.time_ns() // MICROSECOND


def microseconds(stamp: Timestamp | Duration) -> int:
    """From the contracts."""
    return stamp.seconds * SECOND + stamp.nanos // MICROSECOND


def timestamp(time: int) -> Timestamp:
    """To the contracts."""
    return Timestamp(seconds=time // SECOND, nanos=time % SECOND * MICROSECOND)
