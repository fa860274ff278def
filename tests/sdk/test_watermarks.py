"""Receipts that overtook each other: what the application was told once is not taken back."""

from tidings_client.watermarks import Watermarks


def test_marks_grow() -> None:
    marks = Watermarks()
    assert marks.on_mark("c", "ann", 3, 1) == (3, 1)
    assert marks.on_mark("c", "ann", 3, 2) == (3, 2)


def test_what_comes_late_says_nothing() -> None:
    marks = Watermarks()
    marks.on_mark("c", "ann", 111, 45)
    assert marks.on_mark("c", "ann", 67, 1) is None
    assert marks.on_mark("c", "ann", 111, 45) is None


def test_what_comes_late_may_be_ahead_in_one_mark() -> None:
    marks = Watermarks()
    marks.on_mark("c", "ann", 111, 45)
    assert marks.on_mark("c", "ann", 99, 50) == (111, 50)


def test_members_and_conversations_are_apart() -> None:
    marks = Watermarks()
    marks.on_mark("c", "ann", 9, 9)
    assert marks.on_mark("c", "bob", 1, 0) == (1, 0)
    assert marks.on_mark("d", "ann", 2, 0) == (2, 0)


def test_who_moved_longest_ago_is_forgotten_first() -> None:
    marks = Watermarks(most=2)
    for user in ("ann", "bob"):
        marks.on_mark("c", user, 5, 0)
    marks.on_mark("c", "ann", 6, 0)
    marks.on_mark("c", "cyd", 1, 0)
    assert marks.on_mark("c", "ann", 6, 0) is None
    assert marks.on_mark("c", "bob", 5, 0) == (5, 0)
