"""The whole mesh under mutual TLS: each service with its own certificate, and every call that a day's work makes is permitted."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import balancer.serve
import edge.serve
import router.serve
import scheduler.serve
import store.serve
import tagsvc.serve
from balancer.settings import BalancerSettings
from edge.settings import EdgeSettings
from mesh import rpc
from mesh.credentials import mint_token
from mesh.errors import TidingsError
from mesh.mutual_tls import MutualTls, settings_in
from mesh.registry import MemoryRegistry
from mesh.telemetry import Telemetry
from router.settings import RouterSettings
from scheduler.settings import SchedulerSettings
from store.settings import StoreSettings
from tagsvc.settings import TagsvcSettings
from tests.certificates import make_certificates
from tidings.balancer.v1.balancer_pb2 import ListEdgesRequest
from tidings.balancer.v1.balancer_pb2_grpc import BalancerServiceStub
from tidings.common.v1.content_pb2 import Content, Text
from tidings.common.v1.instance_pb2 import Instance
from tidings.common.v1.notification_pb2 import OUTCOME_DELIVERED, Audience, NotificationSpec
from tidings.scheduler.v1.scheduler_pb2 import (
    EstimateAudienceRequest,
    ListRecipientsRequest,
    UploadNotificationRequest,
    WatchNotificationRequest,
)
from tidings.tag.v1.tag_pb2 import ApplyMappingRequest, UserChange
from tidings_client import Client
from tidings_client.business import Business, new_request_id

WITHIN = 20.0


@dataclass
class SecureMesh:
    """A mesh under mutual TLS: its services' records by name, and what clients and operators need."""

    certificates: Path
    records: dict[str, Instance]
    token_secret: str
    telemetry: Telemetry

    @property
    def url(self) -> str:
        """The balancer's."""
        return self.records["balancer"].public_url

    def client(self, user_id: str, folder: Path) -> Client:
        """A client of a user."""
        token = mint_token(self.token_secret, user_id, time.time(), 3600.0)
        return Client(self.url, token, device_id=f"{user_id}-1", state=folder / user_id, user_id=user_id)

    def business(self) -> Business:
        """The business' way in: its ports have doors of their own."""
        return Business.connect(self.records["scheduler"].grpc_address, self.records["tagsvc"].public_url)


@asynccontextmanager
async def secure_mesh(folder: Path) -> AsyncIterator[SecureMesh]:
    """All six services in this process, each dialling the others under its own certificate."""
    certificates, secret = make_certificates(folder / "certs"), secrets.token_hex(32)
    telemetry, registry, records = Telemetry("tests"), MemoryRegistry(), dict[str, Instance]()
    keys: dict[str, Any] = {"token_secret": secret, "ticket_secret": secrets.token_hex(32)}

    def given(service: str) -> dict[str, Any]:
        return {"port": 0, "drain_seconds": 0.5, "reflection": False, **settings_in(certificates, service)}

    services: dict[str, Any] = {
        "store": (store, StoreSettings(**given("store"), database=f"sqlite:///{folder / 'tidings.sqlite'}")),
        "tagsvc": (tagsvc, TagsvcSettings(**given("tagsvc"))),
        "router": (router, RouterSettings(**given("router"))),
        "scheduler": (scheduler, SchedulerSettings(**given("scheduler"))),
        "balancer": (balancer, BalancerSettings(**given("balancer"), **keys, grpc_port=0)),
        "edge": (edge, EdgeSettings(**given("edge"), **keys)),
    }
    async with AsyncExitStack() as stack:
        stack.callback(telemetry.close)
        for name, (package, settings) in services.items():
            records[name] = await stack.enter_async_context(package.serve.serve(settings, registry, telemetry))
        mesh = SecureMesh(certificates, records, secret, telemetry)
        await _ready(mesh.url)
        yield mesh


async def _ready(url: str) -> None:
    async with asyncio.timeout(WITHIN), aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{url}/readyz") as answer:
                if answer.status == 200:
                    return
            await asyncio.sleep(0.01)


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[SecureMesh]:
    async with secure_mesh(tmp_path) as running:
        yield running


async def test_a_chat_and_a_notification_go_through_and_strangers_do_not(mesh: SecureMesh, tmp_path: Path) -> None:
    async with (
        asyncio.timeout(WITHIN),
        mesh.client("alice", tmp_path) as alice,
        mesh.client("bob", tmp_path) as bob,
        mesh.business() as business,
    ):
        await alice.send("bob", "hello").stored()
        assert (await anext(aiter(bob.messages()))).text == "hello"
        await _notify(business, "bob")
        assert (await anext(aiter(bob.notifications()))).text == "The doors are open"
    await _operator_sees_edges(mesh)
    for name, port in _ports(mesh).items():
        await _refuses(mesh, name, port)


async def _notify(business: Business, user_id: str) -> None:
    mapping = ApplyMappingRequest(users=[UserChange(user_id=user_id, add_tags=["vip"])], create_tags=True)
    assert [answer async for answer in business.tags.ApplyMapping(iter([mapping]))]
    audience, content = Audience(expression="vip"), Content(text=Text(text="The doors are open"))
    estimate = await business.notifications.EstimateAudience(EstimateAudienceRequest(audience=audience))
    assert estimate.count == 1
    upload = UploadNotificationRequest(request_id=new_request_id(), spec=NotificationSpec(audience=audience, content=content))
    notification_id = (await business.notifications.UploadNotification(upload)).notification.notification_id
    async for seen in business.notifications.WatchNotification(WatchNotificationRequest(notification_id=notification_id)):
        if seen.report.delivered:
            break
    asked = ListRecipientsRequest(notification_id=notification_id, outcome=OUTCOME_DELIVERED)
    assert (await business.notifications.ListRecipients(asked)).user_ids == [user_id]


async def _operator_sees_edges(mesh: SecureMesh) -> None:
    address = mesh.records["balancer"].grpc_address
    async with rpc.operator_channel(address, "balancer", mesh.certificates) as channel:
        edges = (await BalancerServiceStub(channel).ListEdges(ListEdgesRequest(), timeout=5)).edges
    assert [one.instance.instance_id for one in edges] == [mesh.records["edge"].instance_id]


def _ports(mesh: SecureMesh) -> dict[str, str]:
    return {name: mesh.records[name].grpc_address for name in ("store", "router", "tagsvc", "balancer")}


async def _refuses(mesh: SecureMesh, service: str, address: str) -> None:
    """No plain text; and a role may do no more than it needs: reflection is the operators'."""
    path = "/grpc.health.v1.Health/Check"
    async with rpc.channel(address, mesh.telemetry) as channel:
        assert await _reason(channel, path) == "UNAVAILABLE"
    tls = MutualTls.in_folder(mesh.certificates, "edge")
    async with rpc.channel(address, mesh.telemetry, service, tls) as channel:
        assert await _reason(channel, path) == ""
        forbidden = "/tidings.store.v1.TagLogService/AppendRecords"
        assert await _reason(channel, forbidden) == ("PERMISSION_DENIED" if service == "store" else "INTERNAL")


async def _reason(channel: Any, path: str) -> str:
    """Why a call with an empty request fails; empty when it doesn't."""
    try:
        with rpc.named_errors():
            await channel.unary_unary(path)(b"", timeout=5)
    except TidingsError as error:
        return error.reason
    return ""
