"""Named statements, read as SQL, for both engines.

A statement takes whole tables as parameters: `{wanted}` in its text stands for rows that come as one JSON parameter, so one
statement serves a batch of any size and is parsed and planned once. On SQLite's hot path they are values in the text instead. The
few words that the engines spell differently are in `_WORDS`.
"""

import json
import re
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

from sqlalchemy import Connection, CursorResult, TextClause, text

from store.sqlite_values import SqliteValues

_WORDS = {
    "postgresql": {"for_update": "FOR UPDATE", "skip_locked": "SKIP LOCKED", "greatest": "greatest", "least": "least"},
    # SQLite's only writer has locked the whole file; its max and min take several arguments.
    "sqlite": {"for_update": "", "skip_locked": "", "greatest": "max", "least": "min"},
}
_SQL_TYPES = {"text": "text", "integer": "bigint"}
_json = json.JSONEncoder(separators=(",", ":")).encode


class Statement:
    """A statement and the tables it takes.

    Args:
        template: SQL with `:name` for values, `{name}` for tables, `{for_update}`, `{skip_locked}`, `{greatest}` and
            `{least}` for those words.
        tables: name -> columns, such as "conversation_id text, seq integer".
    """

    def __init__(self, template: str, **tables: str) -> None:
        self._template = template
        self._tables = {name: [tuple(column.split()) for column in columns.split(",")] for name, columns in tables.items()}

    def __call__(self, connection: Connection, **parameters: Any) -> CursorResult[*tuple[Any, ...]]:
        """Execute it. A table is given as an iterable of tuples in the order of its columns."""
        for name in self._tables:
            parameters[name] = self._encode(name, parameters[name])
        return connection.execute(self._texts[connection.dialect.name], parameters)

    def rows(self, connection: Connection, **parameters: Any) -> list[tuple[Any, ...]]:
        """Execute it on the hot path: all rows as plain tuples. SQLite's own driver is asked directly, in a fifth of the time.

        A table is given as a sized iterable of tuples in the order of its columns, the first of which is never None.
        """
        if connection.dialect.name != "sqlite":
            result = self(connection, **parameters)
            return [tuple(row) for row in result] if result.returns_rows else []
        filled = self._values.fill(parameters)
        if filled is not None:
            return driver_of(connection).execute(*filled).fetchall()
        for name in self._tables:
            parameters[name] = self._encode(name, parameters[name])
        return driver_of(connection).execute(self._texts["sqlite"].text, parameters).fetchall()

    @cached_property
    def _texts(self) -> dict[str, TextClause]:
        return {dialect: text(self._spell(_TABLES[dialect], words)) for dialect, words in _WORDS.items()}

    @cached_property
    def _values(self) -> SqliteValues:
        tables = {name: [column for column, _ in columns] for name, columns in self._tables.items()}
        return SqliteValues(self._spell(lambda name, _: f"{{{name}}}", _WORDS["sqlite"]), tables)

    def _spell(self, table: Callable[[str, Sequence[Sequence[str]]], str], words: dict[str, str]) -> str:
        substitutes = words | {name: table(name, columns) for name, columns in self._tables.items()}
        return re.sub(r"\{(\w+)\}", lambda match: substitutes[match[1]], self._template)

    def _encode(self, name: str, rows: Iterable[Sequence[object]]) -> str:
        columns = [column for column, _ in self._tables[name]]
        return _json([dict(zip(columns, row, strict=True)) for row in rows])


def _postgresql_table(name: str, columns: Sequence[Sequence[str]]) -> str:
    types = ", ".join(f"{column} {_SQL_TYPES[kind]}" for column, kind in columns)
    return f"json_to_recordset(CAST(:{name} AS json)) AS {name}({types})"


def _sqlite_table(name: str, columns: Sequence[Sequence[str]]) -> str:
    values = ", ".join(f"json_extract(value, '$.{column}') AS {column}" for column, _ in columns)
    return f"(SELECT {values} FROM json_each(:{name})) AS {name}"  # noqa: S608  (names of ours, no values)


_TABLES = {"postgresql": _postgresql_table, "sqlite": _sqlite_table}


def driver_of(connection: Connection) -> sqlite3.Connection:
    """The driver's connection beneath one to SQLite."""
    return connection.connection.driver_connection  # type: ignore[return-value]


def take_turns(connection: Connection, lock: int) -> None:
    """Let one transaction at a time pass here, till it ends. `lock` is a number of this module."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": lock})


MIGRATION_LOCK = 0x7469_6401  # "tid" and a number: numbers that no other user of the same server is likely to take
USERS_LOCK = 0x7469_6402
DEAD_LETTERS_LOCK = 0x7469_6403
