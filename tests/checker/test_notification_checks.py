"""The checks of G9 to G12 are held to account: a sound history passes, and each kind of breach is caught by its own check."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.checker.audience import members, text
from tests.checker.history import (
    Controlled,
    Disturbed,
    Kept,
    Mapped,
    Opened,
    Operation,
    Recipients,
    Reported,
    Settled,
    Shown,
    Uploaded,
    from_json,
    to_json,
)
from tests.checker.notification_checks import judge

VIP = ("tag", "vip")
FIRST, CANCELLED, VOID = "n-first", "n-cancelled", "n-void"


def reading(name: str, state: str, time: float, sent: int, delivered: int, **parts: int) -> Reported:
    numbers = {"pending": 0, "failed": 0, "expired": 0, "cancelled": 0, **parts}
    return Reported("poll", name, state, 2, sent, delivered, snapshot=3, invoked=time, completed=time + 0.01, fence=1, **numbers)


def upload(name: str, due: float, expires: float, tree: Any = VIP) -> Uploaded:
    return Uploaded("shop", f"r-{name}", tree, (), (), 0, due, expires, due - 0.1, due, "taken", name)


def sound() -> list[Operation]:
    """ann and bob are vip, carl was. Both get the first; of the second ann got it before it was cancelled; the third expires."""
    return [
        Mapped("shop", "everybody", ("ann", "bob", "carl"), (), 0.0, 0.1, 1),
        Mapped("shop", "vip", ("ann", "bob", "carl"), (), 0.1, 0.2, 2),
        Mapped("shop", "vip", (), ("carl",), 0.2, 0.3, 3),
        *(Opened(f"{user}/phone", user, 0.5) for user in ("ann", "bob", "carl")),
        upload(FIRST, 1.0, 100.0),
        reading(FIRST, "SENDING", 1.1, 0, 0, pending=2),
        Shown("ann/phone", "ann", FIRST, 1.2),
        reading(FIRST, "SENDING", 1.3, 1, 1, pending=1),
        Controlled("shop", FIRST, "pause", "p-1", 1.31, 1.32, "done"),
        reading(FIRST, "PAUSED", 1.4, 1, 1, pending=1),
        reading(FIRST, "PAUSED", 1.5, 1, 1, pending=1),
        Controlled("shop", FIRST, "resume", "p-2", 1.6, 1.62, "done"),
        Shown("bob/phone", "bob", FIRST, 1.7),
        reading(FIRST, "COMPLETED", 1.8, 2, 2),
        upload(CANCELLED, 2.0, 100.0),
        Shown("ann/phone", "ann", CANCELLED, 2.1),
        Controlled("shop", CANCELLED, "cancel", "c-1", 2.2, 2.3, "done", 1),
        reading(CANCELLED, "CANCELLED", 2.4, 1, 0, cancelled=2),
        reading(CANCELLED, "CANCELLED", 2.5, 1, 1, cancelled=1),
        upload(VOID, 3.0, 4.0),
        reading(VOID, "EXPIRED", 5.0, 0, 0, expired=2),
        Settled(5.0, 10.0),
        *(Recipients("poll", name, "expansion", ("ann", "bob"), 11.0) for name in (FIRST, CANCELLED, VOID)),
        Recipients("poll", FIRST, "delivered", ("ann", "bob"), 11.0),
        Recipients("poll", CANCELLED, "delivered", ("ann",), 11.0),
    ]


def change(kind: type[Any], where: Callable[[Any], bool], **values: Any) -> Callable[[], list[Operation]]:
    """The sound history with one operation changed."""

    def make() -> list[Operation]:
        history = sound()
        place = next(n for n, one in enumerate(history) if isinstance(one, kind) and where(one))
        history[place] = replace(history[place], **values)
        return history

    return make


def add(*operations: Operation, before_settled: bool = True) -> Callable[[], list[Operation]]:
    """The sound history with more in it."""

    def make() -> list[Operation]:
        history = sound()
        place = next(n for n, one in enumerate(history) if isinstance(one, Settled)) if before_settled else len(history)
        return [*history[:place], *operations, *history[place:]]

    return make


BREACHES: dict[str, Callable[[], list[Operation]]] = {
    "G9 shown_twice": add(Shown("ann/phone", "ann", FIRST, 4.0)),
    "G9 shown_to_stranger": add(
        Shown("carl/phone", "carl", FIRST, 4.0), replace(reading(FIRST, "COMPLETED", 4.1, 2, 2), snapshot=3)
    ),
    "G9 shown_early": change(Shown, lambda one: one.time == 1.2, time=0.6),
    "G9 shown_late": change(Uploaded, lambda one: one.notification == FIRST, expires=1.3),
    "G9 not_reached": change(Shown, lambda one: one.user == "bob", user="nobody", client="nobody/phone"),
    "G9 wrong_expansion": change(Recipients, lambda one: one.outcome == "expansion", users=("ann", "carl")),
    "G9 not_begun": change(Reported, lambda one: one.state == "EXPIRED", state="EXPANDING", expansion=0, expired=0),
    "G9 not_pinned": change(Reported, lambda one: one.state == "EXPIRED", snapshot=0),
    "G10 sum_broken": change(Reported, lambda one: one.completed == 1.3 + 0.01, pending=0),
    "G10 more_than_possible": change(Reported, lambda one: one.completed == 1.1 + 0.01, delivered=1, pending=1),
    "G10 went_back": add(reading(FIRST, "COMPLETED", 1.9, 1, 1, expired=1)),
    "G10 expansion_changed": add(replace(reading(FIRST, "COMPLETED", 1.9, 2, 2), expansion=3, expired=1)),
    "G10 came_back": add(reading(FIRST, "SENDING", 1.9, 2, 2)),
    "G10 delivered_to_nobody": change(
        Recipients, lambda one: one.outcome == "delivered" and one.notification == CANCELLED, users=("ann", "bob")
    ),
    "G10 delivered_forgotten": change(Recipients, lambda one: one.outcome == "delivered", users=("ann",)),
    "G11 sent_after_cancel": add(reading(CANCELLED, "CANCELLED", 2.6, 2, 1, cancelled=1)),
    "G11 shown_after_cancel": add(Shown("bob/phone", "bob", CANCELLED, 2.6)),
    "G11 not_cancelled": change(Reported, lambda one: one.state == "CANCELLED", state="SENDING", cancelled=0, pending=2),
    "G11 not_paused": change(Reported, lambda one: one.state == "PAUSED", state="SENDING"),
    "G11 sent_while_paused": change(Reported, lambda one: one.completed == 1.5 + 0.01, sent=2),
    "G12 fence_went_back": change(Reported, lambda one: one.completed == 1.4 + 0.01, fence=5),
}
COMPANIONS = {
    "G9 not_reached": {
        "G9 shown_to_stranger",
        "G10 delivered_to_nobody",
        "G10 delivered_forgotten",
    },  # whoever was shown it instead
    "G9 not_begun": {"G9 wrong_expansion"},  # the store has an expansion that its report doesn't tell of
    "G9 shown_to_stranger": {"G10 delivered_forgotten"},
    "G11 shown_after_cancel": {"G10 delivered_forgotten"},
}
"""What a fault can't but break as well."""


def test_a_sound_history_holds() -> None:
    assert judge(sound()) == []


@pytest.mark.parametrize("fault", BREACHES)
def test_each_breach_is_caught_by_its_own_check(fault: str) -> None:
    found = {f"{breach.promise} {breach.name}" for breach in judge(BREACHES[fault]())}
    assert fault in found
    assert found - {fault} <= COMPANIONS.get(fault, set())


def test_a_mapping_that_was_never_answered_leaves_audiences_unjudged() -> None:
    history = add(Mapped("shop", "vip", ("carl",), (), 3.0), Shown("carl/phone", "carl", FIRST, 4.0))()
    assert not {breach.name for breach in judge(history)} & {"shown_to_stranger", "wrong_expansion", "not_reached"}


def test_acknowledgements_cut_off_on_their_way_may_be_missing_from_what_is_over() -> None:
    lost = change(Recipients, lambda one: one.outcome == "delivered" and one.notification == CANCELLED, users=())()
    assert {breach.name for breach in judge(lost)} == {"delivered_forgotten"}
    assert judge([*lost, Disturbed(2.0, 2.05)]) == []
    assert {breach.name for breach in judge([*lost, Disturbed(4.0, 5.0)])} == {"delivered_forgotten"}


def test_what_a_device_has_may_count_though_it_was_too_late_to_show_it() -> None:
    kept = Kept("bob/phone", "bob", CANCELLED)
    history = change(Recipients, lambda one: one.outcome == "delivered" and one.notification == CANCELLED, users=("ann", "bob"))()
    assert {breach.name for breach in judge(history)} == {"delivered_to_nobody"}
    assert judge([*history, kept]) == []


def test_one_cancelled_before_it_was_expanded_is_for_nobody() -> None:
    early: list[Operation] = [
        upload("n-early", 3.0, 100.0),
        replace(reading("n-early", "CANCELLED", 3.1, 0, 0), expansion=0, snapshot=0),
    ]
    empty = Recipients("poll", "n-early", "expansion", (), 11.0)
    assert judge([*add(*early)(), empty]) == []
    shown = Shown("ann/phone", "ann", "n-early", 4.0)
    assert "shown_to_stranger" in {breach.name for breach in judge([*add(*early, shown)(), empty])}


def test_a_history_survives_being_written() -> None:
    assert judge([from_json(to_json(one)) for one in sound()]) == []
    assert [to_json(from_json(to_json(one))) for one in sound()] == [to_json(one) for one in sound()]


def test_trees_mean_what_they_say() -> None:
    tree = ("-", ("+", ("tag", "a"), ("user", "dora")), ("&", ("tag", "b"), ("!", ("tag", "c"))))
    assert text(tree) == "((a ) + (user:dora ) ) - ((b ) & (!(c) ) )"
    tags = {"a": {"ann", "bob"}, "b": {"bob", "carl"}, "c": {"carl"}}
    assert members(tree, tags, {"ann", "bob", "carl", "dora"}) == {"ann", "dora"}
