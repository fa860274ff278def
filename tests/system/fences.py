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
    """Of a store on PostgreSQL, which may be away: then the fence last read still says what it was.

    Args:
        url: of the database.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.Connection | None = None
        self._last: dict[str, int] = {}

    def read(self, notification_id: str) -> int:
        """Its fence now; 0 when there is no such notification."""
        try:
            if self._connection is None:
                self._connection = psycopg.connect(self._url, autocommit=True, connect_timeout=2)
            row = self._connection.execute(_SQL + "%s", (notification_id,)).fetchone()
        except psycopg.OperationalError:
            self.close()
        else:
            self._last[notification_id] = int(row[0]) if row else 0
        return self._last.get(notification_id, 0)

    def close(self) -> None:
        """Let go of the database."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
