"""Users' ordinals: asked for many at a time, remembered once known."""

import asyncio
from contextlib import suppress
from typing import Any, cast

import pytest

from mesh import errors
from router import directory
from router.directory import Ordinals
from router.ports import UserStore
from tidings.store.v1.user_pb2 import EnsureUsersRequest, EnsureUsersResponse, User


class Users:
    """A store of users, which counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.refuses = ""

    async def ensure_users(self, request: EnsureUsersRequest) -> EnsureUsersResponse:
        self.asked.append(list(request.user_ids))
        if self.refuses in request.user_ids:
            raise errors.invalid_field("user_ids", "one is none")
        return EnsureUsersResponse(users=[User(user_id=one, user_ordinal=int(one[1:]) + 1) for one in request.user_ids])


async def _asked(users: Users, *user_ids: str) -> list[Any]:
    """What `user_ids` are answered, one after another, by one Ordinals."""
    ordinals = Ordinals(cast(UserStore, users), 100, 1.0)
    work = asyncio.create_task(ordinals.run())
    try:
        return [await asyncio.wait_for(asyncio.gather(ordinals.of(one), return_exceptions=True), 10) for one in user_ids]
    finally:
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work


async def test_who_comes_back_costs_the_store_nothing() -> None:
    users = Users()
    assert await _asked(users, "u1", "u2", "u1", "u2") == [[2], [3], [2], [3]]
    assert users.asked == [["u1"], ["u2"]]


async def test_a_refused_id_is_asked_for_again() -> None:
    users = Users()
    users.refuses = "u1"
    answers = await _asked(users, "u1", "u1")
    assert [type(answer) for (answer,) in answers] == [errors.TidingsError] * 2
    assert len(users.asked) == 2


async def test_only_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "KNOWN_USERS", 2)
    users = Users()
    await _asked(users, "u1", "u2", "u3", "u2", "u1")
    assert users.asked == [["u1"], ["u2"], ["u3"], ["u1"]]
