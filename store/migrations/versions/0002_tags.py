"""The log of changes to tags, and its checkpoints.

Revision: 0002.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Where PostgreSQL has it: what is stored here is mostly bitmaps, for which its own way of compressing takes four times as long.
_HAS_LZ4 = "SELECT 'lz4' = ANY (enumvals) FROM pg_settings WHERE name = 'default_toast_compression'"
_VERSION = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _create_log()
    _create_records()
    _create_checkpoint_parts()
    if op.get_bind().dialect.name == "postgresql" and op.get_bind().scalar(sa.text(_HAS_LZ4)):
        op.execute("ALTER TABLE tag_records ALTER record SET COMPRESSION lz4")
        op.execute("ALTER TABLE tag_checkpoint_parts ALTER part SET COMPRESSION lz4")


def downgrade() -> None:
    for table in ("tag_checkpoint_parts", "tag_records", "tag_log"):
        op.drop_table(table)


def _create_log() -> None:
    numbers = ("last_version", "kept_after_version", "checkpoint_id", "checkpoint_version", "checkpoint_parts", "last_save_id")
    table = op.create_table(
        "tag_log",
        sa.Column("log_id", sa.SmallInteger, autoincrement=False, nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in numbers),
        sa.PrimaryKeyConstraint("log_id", name="pk_tag_log"),
    )
    op.bulk_insert(table, [{"log_id": 1} | dict.fromkeys(numbers, 0)])


def _create_records() -> None:
    op.create_table(
        "tag_records",
        sa.Column("version", _VERSION, autoincrement=False, nullable=False),
        sa.Column("record", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("version", name="pk_tag_records"),
    )


def _create_checkpoint_parts() -> None:
    op.create_table(
        "tag_checkpoint_parts",
        sa.Column("checkpoint_id", sa.BigInteger, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("staged_at", sa.BigInteger, nullable=False),
        sa.Column("part", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("checkpoint_id", "number", name="pk_tag_checkpoint_parts"),
    )
