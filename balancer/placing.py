"""Answers an edge that asks where its clients shall go.

Whom the door refuses is left out, and asks for itself when its time comes. Others are served between one slice and the next.
"""

import asyncio
from collections.abc import Callable

from balancer.door import Door, Mover
from balancer.fleet import Edge
from mesh import errors
from mesh.credentials import Identity
from mesh.telemetry import Telemetry
from tidings.balancer.v1 import balancer_pb2 as pb

MAX_CONNECTIONS = 1_000  # of one question, by the contract
MAX_WAIT_SECONDS = 120.0  # who leaves later asks too early: its ticket, which counts as load, is for a client that leaves by then
SLICE = 50  # tickets made before others get their turn: about 2 ms


class Placing:
    """One balancer's answers.

    Args:
        clock: seconds of the fleet's clock.
        wall: Unix seconds.
    """

    def __init__(self, door: Door, telemetry: Telemetry, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self._door = door
        self._clock = clock
        self._wall = wall
        self._placed = telemetry.counter("placements", "Clients that were to leave an edge, by outcome")

    async def answer(self, asked: pb.PlaceConnections, origin: Edge) -> pb.Placements:
        """Places for those for whom there is one.

        Raises:
            TidingsError: INVALID_FIELD, more are asked for at once than is allowed.
        """
        if len(asked.connections) > MAX_CONNECTIONS:
            raise errors.invalid_field("place.connections", f"at most {MAX_CONNECTIONS} are allowed at once")
        answer = pb.Placements()
        for start in range(0, len(asked.connections), SLICE):
            for one in asked.connections[start : start + SLICE]:
                self._place(one, origin, answer)
            await asyncio.sleep(0)
        return answer

    def _place(self, asked: pb.PlaceConnection, origin: Edge, answer: pb.Placements) -> None:
        wait, outcome = asked.leaves_in_ms / 1000, "OK"
        mover = Mover(Identity(asked.user_id, float(asked.session_expires)), asked.ip, min(wait, MAX_WAIT_SECONDS))
        try:
            place = self._door.move(mover, origin, self._clock(), self._wall())
            answer.placements.add(connection=asked.connection, url=place.url, ticket=place.ticket.text)
        except errors.TidingsError as error:
            outcome = error.reason
        self._placed.add(1, {"outcome": outcome})
