"""Dead letters, and how often a notification's owners failed.

Revision: 0004, after 0003.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_KEY = sa.String().with_variant(sa.String(collation="C"), "postgresql")
_REPLAYING = sa.text("replaying = 1")


def upgrade() -> None:
    op.add_column("notifications", sa.Column("failures", sa.Integer, nullable=False, server_default="0"))
    op.create_table(
        "dead_letters",
        sa.Column("dead_letter_id", _KEY, nullable=False),
        sa.Column("kind", sa.SmallInteger, nullable=False),
        sa.Column("subject", _KEY, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("detail", sa.String, nullable=False),
        sa.Column("attempts", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("from_seq", sa.BigInteger, nullable=False),
        sa.Column("to_seq", sa.BigInteger, nullable=False),
        sa.Column("replaying", sa.SmallInteger, nullable=False),
        sa.PrimaryKeyConstraint("dead_letter_id", name="pk_dead_letters"),
        sa.UniqueConstraint("kind", "subject", name="uq_dead_letters_kind"),
    )
    op.create_index(
        "ix_dead_letters_replaying",
        "dead_letters",
        ["dead_letter_id"],
        postgresql_where=_REPLAYING,
        sqlite_where=_REPLAYING,
    )


def downgrade() -> None:
    op.drop_table("dead_letters")
    op.drop_column("notifications", "failures")
