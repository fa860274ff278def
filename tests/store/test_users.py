"""What UserService promises, on both engines, over gRPC."""

import asyncio

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from tests.store.client import StoreClient, reason
from tidings.store.v1 import user_pb2 as pb


async def test_ordinals_are_dense_and_lasting(store: StoreClient) -> None:
    assert await store.ordinals("a", "b", "c") == [1, 2, 3]
    assert await store.ordinals("d", "b", "d", "e") == [4, 2, 4, 5]
    await store.direct("f", "a")
    assert await store.ordinal("f") == 6


async def test_ordinals_stay_dense_when_callers_race(store: StoreClient) -> None:
    names = [f"u{n}" for n in range(40)]
    answers = await asyncio.gather(*(store.ordinals(*names[n : n + 20]) for n in range(20)))
    everyone = await store.ordinals(*names)
    assert sorted(everyone) == list(range(1, 41))
    for n, answer in enumerate(answers):
        assert answer == everyone[n : n + 20]


async def test_users_are_found_not_made(store: StoreClient) -> None:
    await store.ordinals("a")
    response = await store.users.GetUsers(pb.GetUsersRequest(user_ids=["nobody", "a", "not\0an id", "a"]))
    assert [(user.user_id, user.user_ordinal) for user in response.users] == [("a", 1)]
    assert not response.users[0].HasField("last_seen_time")
    assert await store.ordinal("b") == 2


async def test_last_seen_never_goes_back(store: StoreClient) -> None:
    a, b = await store.ordinals("a", "b")

    async def seen(*pairs: tuple[int, int]) -> list[int]:
        times = [pb.LastSeen(user_ordinal=ordinal, time=Timestamp(seconds=second)) for ordinal, second in pairs]
        await store.users.RecordLastSeen(pb.RecordLastSeenRequest(last_seen=times))
        found = (await store.users.GetUsers(pb.GetUsersRequest(user_ids=["a", "b"]))).users
        return [user.last_seen_time.seconds for user in found]

    assert await seen((a, 100), (b, 50), (a, 70), (99, 1)) == [100, 50]
    assert await seen((a, 99), (b, 51)) == [100, 51]


@pytest.mark.parametrize("user_ids", [["fine", ""], ["x" * 129], ["späce"], ["u"] * 1_001])
async def test_malformed_ids_are_refused(store: StoreClient, user_ids: list[str]) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        await store.ordinals(*user_ids)
    assert reason(caught.value) == "INVALID_FIELD"
    assert await store.ordinal("first") == 1


async def test_users_are_found_by_ordinal_in_the_order_asked_for(store: StoreClient) -> None:
    await store.ordinals("a", "b", "c")
    await store.users.RecordLastSeen(pb.RecordLastSeenRequest(last_seen=[pb.LastSeen(user_ordinal=2, time=Timestamp(seconds=7))]))
    response = await store.users.ListUsers(pb.ListUsersRequest(user_ordinals=[3, 0, 2**32 - 1, 2, 4, 3]))
    assert response.users == [
        pb.User(user_id="c", user_ordinal=3),
        pb.User(user_id="b", user_ordinal=2, last_seen_time=Timestamp(seconds=7)),
    ]
    assert not (await store.users.ListUsers(pb.ListUsersRequest())).users


async def test_too_many_ordinals_are_refused(store: StoreClient) -> None:
    await store.ordinals(*(f"u{n}" for n in range(1_000)))
    response = await store.users.ListUsers(pb.ListUsersRequest(user_ordinals=range(1_000, 0, -1)))
    assert [user.user_id for user in response.users] == [f"u{n}" for n in range(999, -1, -1)]
    with pytest.raises(grpc.RpcError) as caught:
        await store.users.ListUsers(pb.ListUsersRequest(user_ordinals=[1] * 1_001))
    assert reason(caught.value) == "INVALID_FIELD"
