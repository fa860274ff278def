"""PostgreSQL looks after the messages gently: what it does by itself, beside the appends, keeps them waiting.

Revision: 0005, after 0004. SQLite looks after nothing by itself.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# Everything here is read by keys, so the planner needs to know little: a tenth of the rows it looks at otherwise.
_STATISTICS = 10
_DELAY_MS = 20  # of every 200 units of its work: some 500 pages made dirty a second, what 17,000 messages a second fill
_COLUMNS = ("conversation_id", "seq", "sender_ordinal", "client_msg_id", "kind", "target_seq", "stored_at", "body")


def upgrade() -> None:
    _alter(_STATISTICS, f"SET (autovacuum_vacuum_cost_delay = {_DELAY_MS})")


def downgrade() -> None:
    _alter(-1, "RESET (autovacuum_vacuum_cost_delay)")


def _alter(statistics: int, storage: str) -> None:
    if op.get_bind().dialect.name == "postgresql":
        columns = (f"ALTER COLUMN {column} SET STATISTICS {statistics}" for column in _COLUMNS)
        op.execute(f"ALTER TABLE messages {', '.join(columns)}, {storage}")
