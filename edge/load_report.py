"""Tells every balancer the live load of this edge, and does what they order: drain, shed."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import grpc

from edge.departures import Departures
from edge.load_tally import LoadTally, describe
from edge.peers import Peer
from edge.population import Population
from tidings.balancer.v1 import balancer_pb2, balancer_pb2_grpc
from tidings.common.v1.instance_pb2 import Instance

GATHER_SECONDS = 0.1  # reports come at most this often …
QUIET_SECONDS = 2.0  # … and at least this often; see balancer.proto
DEFAULT_OVER_SECONDS = 30.0  # when a command names no time


class LoadReport:
    """The edge's side of ReportLoad.

    Args:
        instance: this edge, as registered.
        lag: seconds the event loop runs late.
    """

    def __init__(self, instance: Instance, population: Population, departures: Departures, lag: Callable[[], float]) -> None:
        self._instance = instance
        self._population = population
        self._departures = departures
        self._lag = lag

    async def converse(self, peer: Peer) -> None:
        """Report to one balancer until the stream ends.

        Raises:
            RpcError: it was lost.
        """
        call: Any = balancer_pb2_grpc.BalancerServiceStub(peer.channel).ReportLoad()
        changed = asyncio.Event()
        tally = LoadTally(changed.set)
        self._population.observe(tally)
        hello = balancer_pb2.EdgeHello(instance=self._instance, connections=map(describe, self._population.all()))
        writer = asyncio.create_task(self._write(call, hello, tally, changed), name="load report")
        try:
            await self._read(call, peer)
        finally:
            self._population.ignore(tally)
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            call.cancel()

    async def _write(self, call: Any, hello: balancer_pb2.EdgeHello, tally: LoadTally, changed: asyncio.Event) -> None:
        await call.write(balancer_pb2.ReportLoadRequest(hello=hello))
        while not tally.overflown:
            await call.write(tally.take(len(self._population), self._population.draining, self._lag()))
            await asyncio.sleep(GATHER_SECONDS)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), QUIET_SECONDS)
            changed.clear()
        call.cancel()

    async def _read(self, call: Any, peer: Peer) -> None:
        while (response := await call.read()) is not grpc.aio.EOF:
            peer.settled = True
            command = response.WhichOneof("command")
            if command == "drain":
                self._departures.drain(_seconds(response.drain))
            elif command == "shed":
                self._departures.shed(response.shed.connections, _seconds(response.shed))


def _seconds(command: balancer_pb2.Drain | balancer_pb2.Shed) -> float:
    return command.over.ToNanoseconds() / 1e9 if command.HasField("over") else DEFAULT_OVER_SECONDS
