"""What tests of the runtime share."""

from collections.abc import Iterator

import pytest

from mesh.telemetry import Telemetry
from tests.servers import etcd_server, redis_server

__all__ = ["etcd_server", "redis_server"]


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """A process's telemetry."""
    one = Telemetry("test")
    yield one
    one.close()
