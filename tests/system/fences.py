"""Reads the fence of a notification where the store keeps it, as no client may: the judge of G12 looks behind the contract."""

import sqlite3
from pathlib import Path

import psycopg

_SQL = "SELECT fence FROM notifications WHERE notification_id = "


class SqliteFences:
    """Of a store on SQLite. Opens the file read-only, at the first question.

    Args:
        path: the store's file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def read(self, notification_id: str) -> int:
        """Its fence now; 0 when there is no such notification."""
        if self._connection is None:
            self._connection = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)
        row = self._connection.execute(_SQL + "?", (notification_id,)).fetchone()
        return int(row[0]) if row else 0

    def close(self) -> None:
        """Let go of the file."""
        if self._connection is not None:
            self._connection.close()


class PostgresFences:
    """Of a store on PostgreSQL.

    Args:
        url: of the database.
    """

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)

    def read(self, notification_id: str) -> int:
        """Its fence now; 0 when there is no such notification."""
        row = self._connection.execute(_SQL + "%s", (notification_id,)).fetchone()
        return int(row[0]) if row else 0

    def close(self) -> None:
        """Let go of the database."""
        self._connection.close()
