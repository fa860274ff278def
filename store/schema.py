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

# One row, number 1: the head of the log of changes to tags.
tag_log = Table(
    "tag_log",
    metadata,
    Column("log_id", SmallInteger, primary_key=True, autoincrement=False),
    Column("last_version", BigInteger, nullable=False),
    Column("kept_after_version", BigInteger, nullable=False),  # records up to this one may be gone
    Column("checkpoint_id", BigInteger, nullable=False),  # these three are the newest checkpoint; all 0 for none
    Column("checkpoint_version", BigInteger, nullable=False),
    Column("checkpoint_parts", BigInteger, nullable=False),
    Column("last_save_id", BigInteger, nullable=False),  # the highest checkpoint_id given out
)

tag_records = Table(
    "tag_records",
    metadata,
    Column("version", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=False),
    Column("record", LargeBinary, nullable=False),
)

# Also parts of checkpoints that are being saved: those whose checkpoint_id isn't the head's.
tag_checkpoint_parts = Table(
    "tag_checkpoint_parts",
    metadata,
    Column("checkpoint_id", BigInteger, primary_key=True),
    Column("number", Integer, primary_key=True),  # from 0
    Column("version", BigInteger, nullable=False),
    Column("staged_at", BigInteger, nullable=False),
    Column("part", LargeBinary, nullable=False),
)

# What changes of a notification, and what it is found by. `state` is the contract's NotificationState: up to 4 it isn't over.
notifications = Table(
    "notifications",
    metadata,
    Column("notification_id", key_text(), primary_key=True),
    Column("state", SmallInteger, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("send_at", BigInteger, nullable=False),
    Column("expire_at", BigInteger, nullable=False),
    Column("type", key_text(), nullable=False),
    Column("series_id", key_text(), nullable=False),  # empty when it doesn't recur
    Column("occurrence", BigInteger, nullable=False),
    Column("request_id", key_text(), nullable=False, unique=True),
    Column("request_digest", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("lease_owner", key_text()),  # null without an owner
    Column("lease_until", BigInteger, nullable=False),
    Column("snapshot_version", BigInteger, nullable=False),
    Column("expansion", BigInteger, nullable=False),  # these four are the totals of its bitmaps
    Column("sent", BigInteger, nullable=False),
    Column("delivered", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("reason", String(), nullable=False),
    Column("started_at", BigInteger),
    Column("finished_at", BigInteger),
    Column("status_report", SmallInteger, nullable=False),
    Column("recipients_kept", SmallInteger, nullable=False),  # 0 once its bitmaps are gone
    Column("estimated_audience", BigInteger, nullable=False),
    Column("failures", Integer, nullable=False, server_default="0"),  # of its owners, since anybody was last sent it
    Column("settled", SmallInteger, nullable=False),  # 1 once it is known whom it is for, were it nobody
    Column("awaits_next", SmallInteger, nullable=False),  # 1 while the next occurrence of its series may yet be made
    # These three hold nothing of what is over: a claim is as quick among a million finished ones.
    Index(
        "ix_notifications_scheduled",
        "priority",
        "send_at",
        "notification_id",
        postgresql_where=text("state = 1"),
        sqlite_where=text("state = 1"),
    ),
    Index(
        "ix_notifications_running", "lease_until", postgresql_where=text("state IN (2, 3)"), sqlite_where=text("state IN (2, 3)")
    ),
    Index("ix_notifications_expiring", "state", "expire_at", postgresql_where=text("state <= 4"), sqlite_where=text("state <= 4")),
    # What the sweeper goes through.
    Index(
        "ix_notifications_kept",
        "status_report",
        "finished_at",
        postgresql_where=text("state > 4 AND recipients_kept = 1"),
        sqlite_where=text("state > 4 AND recipients_kept = 1"),
    ),
    # Listings, by what they are narrowed to; the ids themselves are in the order of uploads. What isn't over has no index by state
    # alone: SQLite would take it for claims.
    Index(
        "ix_notifications_over",
        "state",
        "notification_id",
        postgresql_where=text("state > 4"),
        sqlite_where=text("state > 4"),
    ),
    Index(
        "ix_notifications_series",
        "series_id",
        "notification_id",
        postgresql_where=text("series_id <> ''"),
        sqlite_where=text("series_id <> ''"),
    ),
)

# What was uploaded, which never changes: apart, so that renewing a lease doesn't write it again. The first three are encoded
# NotificationSpecs which make the whole one when put behind each other: without the audience, the audience without ids, the ids.
notification_uploads = Table(
    "notification_uploads",
    metadata,
    Column("notification_id", key_text(), primary_key=True),
    Column("spec", LargeBinary, nullable=False),
    Column("audience", LargeBinary, nullable=False),
    Column("named_ids", LargeBinary, nullable=False),
    Column("recipient_ordinals", LargeBinary, nullable=False),
    Column("excluded_ordinals", LargeBinary, nullable=False),
)

# One bitmap a row, `part` being the contract's Outcome: a write touches only the blocks and parts that change.
notification_blocks = Table(
    "notification_blocks",
    metadata,
    Column("notification_id", key_text(), primary_key=True),
    Column("block", Integer, primary_key=True),
    Column("part", SmallInteger, primary_key=True),
    Column("ordinals", LargeBinary, nullable=False),
)

# What notifications name: tags, aliases, combinations. Those that are over only while the next occurrence may yet need them.
notification_names = Table(
    "notification_names",
    metadata,
    Column("name", key_text(), primary_key=True),
    Column("notification_id", key_text(), primary_key=True),
    Index("ix_notification_names_notification_id", "notification_id"),
    sqlite_with_rowid=False,
)

# First answers, which repeated requests get again.
notification_requests = Table(
    "notification_requests",
    metadata,
    Column("request_id", key_text(), primary_key=True),
    Column("kind", SmallInteger, nullable=False),  # 1 an upload, 2 a change
    Column("digest", LargeBinary, nullable=False),
    Column("answer", LargeBinary, nullable=False),  # an encoded StoredNotification
    Column("created_at", BigInteger, nullable=False),
    Index("ix_notification_requests_created_at", "created_at"),
)

# Work that is put aside. A kind's subject is there once.
dead_letters = Table(
    "dead_letters",
    metadata,
    Column("dead_letter_id", key_text(), primary_key=True),
    Column("kind", SmallInteger, nullable=False),
    Column("subject", key_text(), nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("reason", String(), nullable=False),
    Column("detail", String(), nullable=False),
    Column("attempts", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("from_seq", BigInteger, nullable=False),
    Column("to_seq", BigInteger, nullable=False),
    Column("replaying", SmallInteger, nullable=False),
    UniqueConstraint("kind", "subject"),
    Index(
        "ix_dead_letters_replaying",
        "dead_letter_id",
        postgresql_where=text("replaying = 1"),
        sqlite_where=text("replaying = 1"),
    ),
)
