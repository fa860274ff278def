"""Tells every balancer the live load of this edge, asks them where clients can go, and does what they order: drain, shed."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import grpc

from edge.departures import Departures
from edge.load_tally import LoadTally, describe
from edge.peers import Peer
from edge.places import Desk, Places
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

    def __init__(
        self, instance: Instance, population: Population, departures: Departures, places: Places, lag: Callable[[], float]
    ) -> None:
        self._instance = instance
        self._population = population
        self._departures = departures
        self._places = places
        self._lag = lag

    async def converse(self, peer: Peer) -> None:
        """Report to one balancer until the stream ends.

        Raises:
            RpcError: it was lost.
        """
        call: Any = balancer_pb2_grpc.BalancerServiceStub(peer.channel).ReportLoad()
        changed = asyncio.Event()
        tally, desk = LoadTally(changed.set), Desk()
        self._population.observe(tally)
        tasks: list[asyncio.Task[None]] = []
        try:
            await call.write(balancer_pb2.ReportLoadRequest(hello=self._hello()))
            self._places.open(desk)
            turn = asyncio.Lock()  # a call takes one write at a time
            work = self._write(call, tally, changed, turn), self._ask(call, tally, desk, turn)
            tasks += [asyncio.create_task(one, name="load report") for one in work]
            await self._read(call, peer, desk)
        finally:
            self._population.ignore(tally)
            self._places.close(desk)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            call.cancel()

    def _hello(self) -> balancer_pb2.EdgeHello:
        hello = balancer_pb2.EdgeHello(instance=self._instance, connections=map(describe, self._population.all()))
        hello.instance.draining = self._population.draining
        return hello

    async def _write(self, call: Any, tally: LoadTally, changed: asyncio.Event, turn: asyncio.Lock) -> None:
        while not tally.overflown:
            async with turn:
                await call.write(self._report(tally))
            await asyncio.sleep(GATHER_SECONDS)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), QUIET_SECONDS)
            changed.clear()
        call.cancel()

    async def _ask(self, call: Any, tally: LoadTally, desk: Desk, turn: asyncio.Lock) -> None:
        """Put each question after a report, for the answer depends on whether this edge drains."""
        while True:
            question = await desk.question()
            async with turn:
                await call.write(self._report(tally))
                await call.write(balancer_pb2.ReportLoadRequest(place=question))

    def _report(self, tally: LoadTally) -> balancer_pb2.ReportLoadRequest:
        return tally.take(len(self._population), self._population.draining, self._lag())

    async def _read(self, call: Any, peer: Peer, desk: Desk) -> None:
        while (response := await call.read()) is not grpc.aio.EOF:
            peer.settled = True
            command = response.WhichOneof("command")
            if command == "drain":
                self._departures.drain(_seconds(response.drain))
            elif command == "shed":
                self._departures.shed(response.shed.connections, _seconds(response.shed))
            elif command == "placements":
                desk.on_answer(response.placements)


def _seconds(command: balancer_pb2.Drain | balancer_pb2.Shed) -> float:
    return command.over.ToNanoseconds() / 1e9 if command.HasField("over") else DEFAULT_OVER_SECONDS
