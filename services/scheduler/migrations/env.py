"""Runs the migrations on the connection that jobstore.py has opened; alembic loads this file."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    render_as_batch=True,  # SQLite cannot alter a column in place
)
# Without a transaction of alembic's own: the caller's covers all migrations.
context.run_migrations()
