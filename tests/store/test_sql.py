"""A table of few rows goes to SQLite as values and one of many as JSON, and it is the same table there."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine

from store.sql import Statement, driver_of
from store.sqlite_values import MOST

TABLE = Statement(
    "SELECT name, number, typeof(name), typeof(number), :value FROM {given} ORDER BY name", given="name text, number integer"
)
ROWS = [("plain", 1), ("\"quoted\" \\ and 'single'", -1), ("{given} :value", 2**62), ("grüße 🎈", 0), ("", None)]


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    engine = create_engine(f"sqlite:///{tmp_path / 'some.sqlite'}")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@pytest.mark.parametrize("more", [0, 1, 2, 4, MOST - 1, MOST, 2 * MOST])
@pytest.mark.parametrize("row", ROWS)
def test_a_row_is_the_same_among_however_many(connection: Connection, row: tuple[str, int | None], more: int) -> None:
    others = [(f"~{number:04}", number) for number in range(more)]
    found = TABLE.rows(connection, given=[*others, row], value="told")
    assert found[0] == (*row, "text", "null" if row[1] is None else "integer", "told")
    assert [one[:2] for one in found[1:]] == others


def test_no_row_is_an_empty_table(connection: Connection) -> None:
    assert TABLE.rows(connection, given=[], value="told") == []


def test_tables_are_told_apart_and_can_be_named_twice(connection: Connection) -> None:
    pairs = Statement(
        "SELECT a, b, :c FROM {left} JOIN {right} ON a < b WHERE a NOT IN (SELECT b FROM {right}) ORDER BY a, b",
        left="a integer",
        right="b integer",
    )
    found = pairs.rows(connection, left=[(1,), (2,), (3,)], right={(2,): "", (4,): ""}.keys(), c="c")
    assert found == [(1, 2, "c"), (1, 4, "c"), (3, 4, "c")]


def test_a_large_table_beside_a_small_one_is_searched_not_gone_through(connection: Connection) -> None:
    newest = Statement(
        """
        SELECT devices.n, members.chat, positions.seq FROM {devices} JOIN members ON members.user = devices.user
        LEFT JOIN {positions} ON positions.n = devices.n AND positions.chat = members.chat
        """,
        devices="n integer, user integer",
        positions="n integer, chat text, seq integer",
    )
    driver, devices, chats = driver_of(connection), range(16), [f"chat {number}" for number in range(30)]
    driver.execute("CREATE TABLE members (user integer, chat text, PRIMARY KEY (user, chat))")
    driver.executemany("INSERT INTO members VALUES (?, ?)", [(user, chat) for user in devices for chat in chats])
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 100

    driver.set_progress_handler(count, 100)
    positions = [(device, chat, 7) for device in devices for chat in chats]
    found = newest.rows(connection, devices=[(device, device) for device in devices], positions=positions)
    assert len(found) == len(positions)
    assert steps < 500 * len(positions), "each row of one would meet each row of the other"
