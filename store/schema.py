"""The tables, for SQLite and PostgreSQL alike. Migrations bring a database here; a test compares the two.

Rules: times are microseconds since 1970, counted in integers. The tables that every message touches (messages, device_cursors) have
no foreign keys: the statement that writes them has found and locked the conversation. No index covers a column of `conversations`
that an append changes, so that PostgreSQL can update the row in place (measured: a quarter more appends a second); the few queries
over such columns read the table through.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    UniqueConstraint,
    text,
)
from sqlalchemy.types import TypeEngine

metadata = MetaData(
    naming_convention={"pk": "pk_%(table_name)s", "uq": "uq_%(table_name)s_%(column_0_name)s", "ix": "ix_%(column_0_label)s"}
)


def key_text() -> TypeEngine[str]:
    """Text compared byte by byte, so that both engines, and Python, sort it alike."""
    return String().with_variant(String(collation="C"), "postgresql")


users = Table(
    "users",
    metadata,
    Column("ordinal", Integer, primary_key=True, autoincrement=False),
    Column("user_id", key_text(), nullable=False, unique=True),
    Column("last_seen_at", BigInteger),
    Column("created_at", BigInteger, nullable=False),
)

conversations = Table(
    "conversations",
    metadata,
    Column("conversation_id", key_text(), primary_key=True),
    Column("kind", SmallInteger, nullable=False),
    Column("name", String(), nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("retained_from_seq", BigInteger, nullable=False),  # entries below are not shown, their bodies are gone
    Column("removed_below_seq", BigInteger, nullable=False),  # entries below are not even there
    Column("dispatched_seq", BigInteger, nullable=False),
    Column("membership_version", BigInteger, nullable=False),
    Column("retention_kind", SmallInteger, nullable=False),
    Column("retention_keep", BigInteger, nullable=False),  # microseconds
    Column("created_at", BigInteger, nullable=False),
    Column("last_entry_at", BigInteger, nullable=False),
    Column("creator_ordinal", Integer),  # these three make the creation of a group idempotent
    Column("request_id", key_text()),
    Column("request_hash", LargeBinary),
    UniqueConstraint("creator_ordinal", "request_id"),
    # What the sweeper goes through; hardly ever changes.
    Index(
        "ix_conversations_swept",
        "conversation_id",
        postgresql_where=text("retention_kind <> 1"),
        sqlite_where=text("retention_kind <> 1"),
    ),
)

members = Table(
    "members",
    metadata,
    Column("conversation_id", key_text(), primary_key=True),
    Column("user_ordinal", Integer, primary_key=True),
    Column("role", SmallInteger, nullable=False),
    Column("visible_from_seq", BigInteger, nullable=False),
    Column("delivered_seq", BigInteger, nullable=False),
    Column("read_seq", BigInteger, nullable=False),
    Index("ix_members_user", "user_ordinal", "conversation_id"),
    sqlite_with_rowid=False,
)

messages = Table(
    "messages",
    metadata,
    Column("conversation_id", key_text(), primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("sender_ordinal", Integer, nullable=False),
    Column("client_msg_id", key_text()),  # null for events, which no client sent
    Column("kind", SmallInteger, nullable=False),
    Column("target_seq", BigInteger, nullable=False),
    Column("stored_at", BigInteger, nullable=False),  # never falls while seq grows
    Column("body", LargeBinary),  # null for a deletion and for what was erased
    UniqueConstraint("conversation_id", "sender_ordinal", "client_msg_id"),
    # Finds a deleted message's edits; holds nothing of plain messages.
    Index("ix_messages_edits", "conversation_id", "target_seq", postgresql_where=text("kind = 2"), sqlite_where=text("kind = 2")),
    sqlite_with_rowid=False,
)

device_cursors = Table(
    "device_cursors",
    metadata,
    Column("user_ordinal", Integer, primary_key=True),
    Column("device_id", key_text(), primary_key=True),
    Column("conversation_id", key_text(), primary_key=True),
    Column("seq", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
