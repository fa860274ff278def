"""What `tidings top` shows when those it asks hang."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cli import top_source
from cli.top_source import Source
from mesh.registry import Nodes
from tidings.common.v1.instance_pb2 import Instance


class HungBalancers:
    """A way into a mesh of one edge, whose balancers take calls and never answer."""

    async def watch(self, service: str) -> AsyncIterator[Nodes]:
        yield {"edge-1": Instance(service="edge", instance_id="edge-1")} if service == "edge" else {}
        await asyncio.Event().wait()

    async def call(self, *_: object, **__: object) -> Any:
        await asyncio.Event().wait()


async def test_balancers_that_hang_do_not_hold_up_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top_source, "SCRAPE_SECONDS", 0.05)
    inside: Any = HungBalancers()
    async with asyncio.timeout(5), Source.opened(inside, None) as source:
        assert [(one.instance_id, one.state) for one in await source.rows()] == [("edge-1", "away")]
