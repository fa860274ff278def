"""Brings a database to the present schema when a store starts."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from store.sql import MIGRATION_LOCK, take_turns

_MIGRATIONS = Path(__file__).parent / "migrations"


def migrate(connection: Connection, revision: str = "head") -> None:
    """Run what is missing, in the connection's transaction; a second store starting at the same time waits, then finds it done."""
    take_turns(connection, MIGRATION_LOCK)
    command.upgrade(configuration(connection), revision)


def configuration(connection: Connection) -> Config:
    """What alembic must know; the migrations lie beside this module."""
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
