"""Who may call a scheduler."""

import hashlib

import pytest

from mesh import rpc
from mesh.errors import TidingsError
from tests.scheduler.mesh_under_test import Mesh, Store
from tidings.scheduler.v1 import scheduler_pb2 as pb


async def test_a_caller_from_elsewhere_is_refused(mesh: Mesh, store: Store) -> None:
    business = await mesh.scheduler(allowed_networks=["10.0.0.0/8"])
    with pytest.raises(TidingsError) as raised:
        await business.list()
    assert raised.value.reason == "NETWORK_REFUSED"


async def test_an_api_key_is_asked_of_calls_and_streams(mesh: Mesh, store: Store) -> None:
    business = await mesh.scheduler(api_keys={"shop": hashlib.sha256(b"key").hexdigest()})
    watch = pb.WatchNotificationRequest(notification_id="n" + "a" * 26)
    for metadata in ((), (("authorization", "Bearer other"),)):
        for call in (business.stub.ListNotifications(pb.ListNotificationsRequest(), metadata=metadata),):
            with pytest.raises(TidingsError) as raised, rpc.named_errors():
                await call
            assert raised.value.reason == "UNAUTHENTICATED"
        with pytest.raises(TidingsError) as raised, rpc.named_errors():
            async for _ in business.stub.WatchNotification(watch, metadata=metadata):
                raise AssertionError("let in")
        assert raised.value.reason == "UNAUTHENTICATED"
    right = (("authorization", "Bearer key"),)
    assert not (await business.stub.ListNotifications(pb.ListNotificationsRequest(), metadata=right)).notifications
    with pytest.raises(TidingsError) as raised, rpc.named_errors():
        async for _ in business.stub.WatchNotification(watch, metadata=right):
            raise AssertionError("there is no such notification")
    assert raised.value.reason == "NOTIFICATION_NOT_FOUND"
