"""The database behind a store's back: where tests spoil what it keeps, and mend it."""

import sqlite3
from contextlib import closing

import psycopg

_REFUSE_SQLITE = """
CREATE TRIGGER refuse_{what} BEFORE {event} ON {table} WHEN {when} BEGIN SELECT RAISE(ABORT, 'poisoned'); END
"""
_REFUSE_POSTGRESQL = """
CREATE FUNCTION refuse_{what}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'poisoned'; END $$;
CREATE TRIGGER refuse_{what} BEFORE {event} ON {table} FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION refuse_{what}()
"""


def execute(url: str, statement: str, **values: object) -> None:
    """Run a statement; values are named as :name."""
    if url.startswith("sqlite:///"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=10)) as connection, connection:
            connection.execute(statement, values)
        return
    for name in values:
        statement = statement.replace(f":{name}", f"%({name})s")
    with psycopg.connect(url) as session:
        session.execute(statement.encode(), values or None)


def query(url: str, question: str) -> list[tuple[object, ...]]:
    """What a SQLite database has."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=10)) as connection:
        return list(connection.execute(question))


def refuse(url: str, what: str, event: str, table: str, when: str) -> None:
    """Have the database refuse rows for a reason that won't pass and that nobody foresaw, until `allow`."""
    template = _REFUSE_SQLITE if url.startswith("sqlite") else _REFUSE_POSTGRESQL
    execute(url, template.format(what=what, event=event, table=table, when=when))


def allow(url: str, what: str, table: str) -> None:
    """End what `refuse` began."""
    execute(url, f"DROP TRIGGER refuse_{what}" + ("" if url.startswith("sqlite") else f" ON {table}"))
