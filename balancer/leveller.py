"""Rebalancing by itself: looks at the edges from time to time, and has those too far above the average shed.

Of several balancers, the one with the lowest instance id in the registry orders; one that drains doesn't. The registry is a hint:
while two believe that it is them, clients move twice as fast at most, and the next round counts anew.
"""

import asyncio

import structlog

from balancer.service import BalancerServicer
from mesh import errors
from mesh.registry import Nodes, Registry

_log = structlog.get_logger(__name__)


class Leveller:
    """One balancer's part in it.

    Args:
        instance_id: this balancer's.
        every: seconds between two looks; 0 never looks.
        per_second: connections sent away in all.
        tolerance: share above the average below which nothing is done.
    """

    def __init__(self, servicer: BalancerServicer, instance_id: str, every: float, per_second: int, tolerance: float) -> None:
        self._servicer = servicer
        self._instance_id = instance_id
        self._every = every
        self._per_second = per_second
        self._tolerance = tolerance
        self._first = ""

    async def follow(self, registry: Registry) -> None:
        """Learn who the balancers are. Runs until cancelled."""
        async for nodes in registry.watch("balancer"):
            self.on_balancers(nodes)

    async def run(self) -> None:
        """Look, again and again. Runs until cancelled."""
        while self._every:
            await asyncio.sleep(self._every)
            self.look()

    def on_balancers(self, nodes: Nodes) -> None:
        """These are the balancers now."""
        self._first = min((one for one, instance in nodes.items() if not instance.draining), default="")

    def look(self) -> int:
        """Order what is to be ordered; gives the connections that are to move."""
        if self._first != self._instance_id:
            return 0
        try:
            return self._servicer.level(self._per_second, self._tolerance)
        except errors.TidingsError as error:  # the next look counts anew
            _log.warning("an edge took no order", fault=str(error))
            return 0
