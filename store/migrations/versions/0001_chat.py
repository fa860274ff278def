"""Users, conversations, members, messages, device cursors.

Revision: 0001, the first.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_KEY = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    _create_users()
    _create_conversations()
    _create_members()
    _create_messages()
    _create_device_cursors()


def downgrade() -> None:
    for table in ("device_cursors", "messages", "members", "conversations", "users"):
        op.drop_table(table)


def _create_users() -> None:
    op.create_table(
        "users",
        sa.Column("ordinal", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("user_id", _KEY, nullable=False),
        sa.Column("last_seen_at", sa.BigInteger),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("ordinal", name="pk_users"),
        sa.UniqueConstraint("user_id", name="uq_users_user_id"),
    )


def _create_conversations() -> None:
    op.create_table(
        "conversations",
        sa.Column("conversation_id", _KEY, nullable=False),
        sa.Column("kind", sa.SmallInteger, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("last_seq", sa.BigInteger, nullable=False),
        sa.Column("retained_from_seq", sa.BigInteger, nullable=False),
        sa.Column("removed_below_seq", sa.BigInteger, nullable=False),
        sa.Column("dispatched_seq", sa.BigInteger, nullable=False),
        sa.Column("membership_version", sa.BigInteger, nullable=False),
        sa.Column("retention_kind", sa.SmallInteger, nullable=False),
        sa.Column("retention_keep", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("last_entry_at", sa.BigInteger, nullable=False),
        sa.Column("creator_ordinal", sa.Integer),
        sa.Column("request_id", _KEY),
        sa.Column("request_hash", sa.LargeBinary),
        sa.PrimaryKeyConstraint("conversation_id", name="pk_conversations"),
        sa.UniqueConstraint("creator_ordinal", "request_id", name="uq_conversations_creator_ordinal"),
    )
    swept = sa.text("retention_kind <> 1")
    op.create_index("ix_conversations_swept", "conversations", ["conversation_id"], postgresql_where=swept, sqlite_where=swept)


def _create_members() -> None:
    op.create_table(
        "members",
        sa.Column("conversation_id", _KEY, nullable=False),
        sa.Column("user_ordinal", sa.Integer, nullable=False),
        sa.Column("role", sa.SmallInteger, nullable=False),
        sa.Column("visible_from_seq", sa.BigInteger, nullable=False),
        sa.Column("delivered_seq", sa.BigInteger, nullable=False),
        sa.Column("read_seq", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("conversation_id", "user_ordinal", name="pk_members"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_members_user", "members", ["user_ordinal", "conversation_id"])


def _create_messages() -> None:
    op.create_table(
        "messages",
        sa.Column("conversation_id", _KEY, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("sender_ordinal", sa.Integer, nullable=False),
        sa.Column("client_msg_id", _KEY),
        sa.Column("kind", sa.SmallInteger, nullable=False),
        sa.Column("target_seq", sa.BigInteger, nullable=False),
        sa.Column("stored_at", sa.BigInteger, nullable=False),
        sa.Column("body", sa.LargeBinary),
        sa.PrimaryKeyConstraint("conversation_id", "seq", name="pk_messages"),
        sa.UniqueConstraint("conversation_id", "sender_ordinal", "client_msg_id", name="uq_messages_conversation_id"),
        sqlite_with_rowid=False,
    )
    edits = sa.text("kind = 2")
    columns = ["conversation_id", "target_seq"]
    op.create_index("ix_messages_edits", "messages", columns, postgresql_where=edits, sqlite_where=edits)


def _create_device_cursors() -> None:
    op.create_table(
        "device_cursors",
        sa.Column("user_ordinal", sa.Integer, nullable=False),
        sa.Column("device_id", _KEY, nullable=False),
        sa.Column("conversation_id", _KEY, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("user_ordinal", "device_id", "conversation_id", name="pk_device_cursors"),
        sqlite_with_rowid=False,
    )
