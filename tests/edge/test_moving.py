"""Edges that come and go under a real balancer: who leaves is expected elsewhere, at their own time."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

import balancer.serve
import edge.serve
from balancer.settings import BalancerSettings
from edge.settings import EdgeSettings
from mesh import rpc
from tests.edge.conftest import SECRET, WAIT, Client, Edge, Start, token
from tests.edge.test_longpoll import Poller, send
from tidings.balancer.v1 import balancer_pb2 as pb
from tidings.balancer.v1 import balancer_pb2_grpc
from tidings.client.v1.frames_pb2 import GoAway, Hello
from tidings.common.v1 import error_pb2
from tidings.common.v1.instance_pb2 import Instance

MANY = 200
OVER = 2.0  # seconds


class Fleet:
    """An edge that is there, a balancer, and edges that come.

    Attributes:
        moved: for when clients that have moved were told to, by the loop's clock; on a busy machine they come later.
    """

    def __init__(self, first: Edge, stack: AsyncExitStack, door: Instance, channel: Any) -> None:
        self.first = first
        self.door = door
        self.balancer: balancer_pb2_grpc.BalancerServiceAsyncStub = balancer_pb2_grpc.BalancerServiceStub(channel)
        self.moved: list[float] = []
        self._stack = stack

    async def start_edge(self, **settings: Any) -> Instance:
        options = {"port": 0, "token_secret": SECRET, "ticket_secret": SECRET, "drain_seconds": 0.0, **settings}
        serving = edge.serve.serve(EdgeSettings.model_validate(options), self.first.registry, self.first.telemetry)
        instance = await self._stack.enter_async_context(serving)
        await self.until(lambda edges: instance.instance_id in edges)
        return instance

    async def until(self, condition: Any) -> None:
        """Ask the balancer until its edges, by id, are so."""
        async with asyncio.timeout(WAIT):
            while True:
                listed = (await self.balancer.ListEdges(pb.ListEdgesRequest())).edges
                if condition({one.instance.instance_id: one for one in listed}):
                    return
                await asyncio.sleep(0.01)

    async def assigned(self, user_id: str) -> str:
        """The base URL of the edge that the door gives a newcomer."""
        headers = {"Authorization": f"Bearer {token(user_id)}"}
        async with self.first.http.post(self.door.public_url + "/v1/connect", headers=headers) as response:
            assert response.status == 200
            return str(json.loads(await response.text())["url"]).removesuffix("/v1/ws")

    async def follow(self, client: Client) -> GoAway:
        """Do as one is told; gives what that was."""
        told = (await client.until("go_away")).go_away
        wait = told.reconnect_after.ToNanoseconds() / 1e9
        appointed = asyncio.get_running_loop().time() + wait
        await asyncio.sleep(wait)
        url, protocols = f"{told.url}/v1/ws", ("tidings.v1.proto",)
        socket = await self.first.http.ws_connect(url, params={"ticket": told.ticket}, protocols=protocols, autoclose=False)
        self._stack.push_async_callback(socket.close)
        self.moved.append(appointed)
        await client.socket.close()
        await Client(socket).say(hello=Hello(device_id="phone"))
        await Client(socket).until("welcome")
        return told


@asynccontextmanager
async def fleet(first: Edge, **settings: Any) -> AsyncIterator[Fleet]:
    options = {"port": 0, "grpc_port": 0, "token_secret": SECRET, "ticket_secret": SECRET, "drain_seconds": 0.1, **settings}
    async with AsyncExitStack() as stack:
        serving = balancer.serve.serve(BalancerSettings.model_validate(options), first.registry, first.telemetry)
        door = await stack.enter_async_context(serving)
        channel = await stack.enter_async_context(rpc.channel(door.grpc_address, first.telemetry))
        known = Fleet(first, stack, door, channel)
        await known.until(lambda edges: first.instance.instance_id in edges)
        yield known


async def crowd(edge: Edge, count: int) -> list[Client]:
    return list(await asyncio.gather(*(edge.online(f"user-{number}") for number in range(count))))


@pytest.mark.parametrize("ordered", [False, True])
async def test_everyone_leaves_in_their_own_time_for_an_edge_that_expects_them(start: Start, ordered: bool) -> None:
    leaving = await start(drain_seconds=OVER + 5.0)
    clients = await crowd(leaving, MANY if not ordered else 20)
    async with fleet(leaving, connections_per_user=1, rebalance_seconds=0) as known:
        other = await known.start_edge()
        following = [asyncio.create_task(known.follow(client)) for client in clients]
        loop = asyncio.get_running_loop()
        began = loop.time()
        if ordered:
            order = pb.DrainEdgeRequest(instance_id=leaving.instance.instance_id, over=Duration(seconds=int(OVER)))
            assert (await known.balancer.DrainEdge(order)).connections == len(clients)
        else:
            following.append(asyncio.create_task(leaving.stop()))
            await known.until(lambda edges: edges[leaving.instance.instance_id].instance.draining)
        assert {await known.assigned(f"newcomer-{number}") for number in range(10)} == {other.public_url}
        told = (await asyncio.gather(*following))[: len(clients)]
        assert {one.url for one in told} == {other.public_url}
        assert loop.time() - began < OVER + 4.0, "an empty edge has nothing to wait for"
        await known.until(lambda edges: edges[other.instance_id].connections == len(clients))
        check_pace(known.moved, len(clients))


def check_pace(arrivals: list[float], count: int) -> None:
    """Spread over the time given: no quarter of a second has much more than its share."""
    first, last = min(arrivals), max(arrivals)
    assert OVER * 0.8 < last - first < OVER + 0.5
    quarters = Counter(int((at - first) / 0.25) for at in arrivals)
    share = count * 0.25 / OVER
    assert max(quarters.values()) <= share * 1.5 + 5, quarters


async def test_a_new_edge_is_filled_from_above_the_average_only(start: Start) -> None:
    first = await start()
    clients = await crowd(first, 40)
    async with fleet(first, rebalance_seconds=0.05, rebalance_per_second=40) as known:
        second = await known.start_edge()
        following = [asyncio.create_task(known.follow(client)) for client in clients]
        await known.until(lambda edges: edges[second.instance_id].connections == 20)
        await known.until(lambda edges: edges[first.instance.instance_id].connections == 20)
        assert max(known.moved) - min(known.moved) > 0.3, "20 at 40 a second"
        assert sum(task.done() for task in following) <= 20
        for task in following:
            task.cancel()


async def test_without_a_balancer_they_are_told_a_time_alone(start: Start) -> None:
    leaving = await start(drain_seconds=6.0)
    clients = await crowd(leaving, 5)
    stopping = asyncio.create_task(leaving.stop())
    for client in clients:
        told = (await client.until("go_away")).go_away
        assert (told.url, told.ticket) == ("", "")
        assert told.reconnect_after.ToNanoseconds() <= 1e9
        await client.socket.close()
    await stopping


async def test_who_is_at_a_leaving_edge_still_has_its_http_api_and_long_poll(start: Start) -> None:
    leaving = await start(drain_seconds=0.8)
    alice = Poller(leaving, "alice")
    await alice.open()
    waiting = asyncio.create_task(alice.until("go_away"))
    stopping = asyncio.create_task(leaving.stop())
    assert (await waiting).go_away.HasField("reconnect_after"), "a turn that waits is answered"
    assert (await alice.until("message_stored", send("bob", "late"))).message_stored.seq == 1
    headers = {"Authorization": f"Bearer {token('alice')}"}
    async with leaving.http.get(leaving.api + "/api/v1/chats", headers=headers) as response:
        assert response.status == 200
    async with leaving.http.post(leaving.api + "/v1/poll", headers=headers, json={}) as response:
        assert (response.status, (await response.json())["code"]) == (503, error_pb2.ERROR_CODE_GOING_AWAY)
    await stopping
