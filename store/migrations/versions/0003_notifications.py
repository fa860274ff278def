"""Notifications: their life, uploads, recipients by blocks, names, first answers.

Revision: 0003, after 0002.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# Bitmaps are written again and again: PostgreSQL's own way of compressing makes a write take six times as long as none does
# (measured); its other way, where it has that, two thirds.
_HAS_LZ4 = "SELECT 'lz4' = ANY (enumvals) FROM pg_settings WHERE name = 'default_toast_compression'"
_KEY = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    _create_notifications()
    _create_notification_indexes()
    _create_notification_uploads()
    _create_notification_blocks()
    _create_notification_names()
    _create_notification_requests()


def downgrade() -> None:
    for table in (
        "notification_requests",
        "notification_names",
        "notification_blocks",
        "notification_uploads",
        "notifications",
    ):
        op.drop_table(table)


def _create_notifications() -> None:
    op.create_table(
        "notifications",
        sa.Column("notification_id", _KEY, nullable=False),
        sa.Column("state", sa.SmallInteger, nullable=False),
        sa.Column("priority", sa.SmallInteger, nullable=False),
        sa.Column("send_at", sa.BigInteger, nullable=False),
        sa.Column("expire_at", sa.BigInteger, nullable=False),
        sa.Column("type", _KEY, nullable=False),
        sa.Column("series_id", _KEY, nullable=False),
        sa.Column("occurrence", sa.BigInteger, nullable=False),
        sa.Column("request_id", _KEY, nullable=False),
        sa.Column("request_digest", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("lease_owner", _KEY),
        sa.Column("lease_until", sa.BigInteger, nullable=False),
        sa.Column("snapshot_version", sa.BigInteger, nullable=False),
        sa.Column("expansion", sa.BigInteger, nullable=False),
        sa.Column("sent", sa.BigInteger, nullable=False),
        sa.Column("delivered", sa.BigInteger, nullable=False),
        sa.Column("failed", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("started_at", sa.BigInteger),
        sa.Column("finished_at", sa.BigInteger),
        sa.Column("status_report", sa.SmallInteger, nullable=False),
        sa.Column("recipients_kept", sa.SmallInteger, nullable=False),
        sa.Column("estimated_audience", sa.BigInteger, nullable=False),
        sa.Column("settled", sa.SmallInteger, nullable=False),
        sa.Column("awaits_next", sa.SmallInteger, nullable=False),
        sa.PrimaryKeyConstraint("notification_id", name="pk_notifications"),
        sa.UniqueConstraint("request_id", name="uq_notifications_request_id"),
    )


def _create_notification_indexes() -> None:
    _create_index("scheduled", ["priority", "send_at", "notification_id"], "state = 1")
    _create_index("running", ["lease_until"], "state IN (2, 3)")
    _create_index("expiring", ["state", "expire_at"], "state <= 4")
    _create_index("kept", ["status_report", "finished_at"], "state > 4 AND recipients_kept = 1")
    _create_index("over", ["state", "notification_id"], "state > 4")
    _create_index("series", ["series_id", "notification_id"], "series_id <> ''")


def _create_index(name: str, columns: list[str], where: str) -> None:
    condition = sa.text(where)
    op.create_index(f"ix_notifications_{name}", "notifications", columns, postgresql_where=condition, sqlite_where=condition)


def _create_notification_uploads() -> None:
    op.create_table(
        "notification_uploads",
        sa.Column("notification_id", _KEY, nullable=False),
        sa.Column("spec", sa.LargeBinary, nullable=False),
        sa.Column("audience", sa.LargeBinary, nullable=False),
        sa.Column("named_ids", sa.LargeBinary, nullable=False),
        sa.Column("recipient_ordinals", sa.LargeBinary, nullable=False),
        sa.Column("excluded_ordinals", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("notification_id", name="pk_notification_uploads"),
    )


def _create_notification_blocks() -> None:
    op.create_table(
        "notification_blocks",
        sa.Column("notification_id", _KEY, nullable=False),
        sa.Column("block", sa.Integer, nullable=False),
        sa.Column("part", sa.SmallInteger, nullable=False),
        sa.Column("ordinals", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("notification_id", "block", "part", name="pk_notification_blocks"),
    )
    if op.get_bind().dialect.name == "postgresql":
        way = "COMPRESSION lz4" if op.get_bind().scalar(sa.text(_HAS_LZ4)) else "STORAGE EXTERNAL"
        op.execute(f"ALTER TABLE notification_blocks ALTER ordinals SET {way}")


def _create_notification_names() -> None:
    op.create_table(
        "notification_names",
        sa.Column("name", _KEY, nullable=False),
        sa.Column("notification_id", _KEY, nullable=False),
        sa.PrimaryKeyConstraint("name", "notification_id", name="pk_notification_names"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_notification_names_notification_id", "notification_names", ["notification_id"])


def _create_notification_requests() -> None:
    op.create_table(
        "notification_requests",
        sa.Column("request_id", _KEY, nullable=False),
        sa.Column("kind", sa.SmallInteger, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("answer", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("request_id", name="pk_notification_requests"),
    )
    op.create_index("ix_notification_requests_created_at", "notification_requests", ["created_at"])
