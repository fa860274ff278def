"""A table of one row goes to SQLite another way than one of many, and is the same table there."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine

from store.sql import Statement

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


@pytest.mark.parametrize("row", ROWS)
def test_a_row_alone_is_what_it_is_among_others(connection: Connection, row: tuple[str, int | None]) -> None:
    alone = TABLE.rows(connection, given=[row], value="told")
    among = TABLE.rows(connection, given=[row, ("~", 7)], value="told")
    assert alone == among[:1]
    assert alone[0][:2] == row


def test_no_row_is_an_empty_table(connection: Connection) -> None:
    assert TABLE.rows(connection, given=[], value="told") == []
