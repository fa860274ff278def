"""How alembic runs our migrations: on the connection it is given, inside its transaction. See store/migrate.py."""

from alembic import context

from store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
