"""Several schedulers: who they are, what each has of a run, and whose data is to be removed."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables. What is there belongs to the only scheduler, which has no name."""
    op.create_table(
        "schedulers",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("address", sa.String, nullable=False),
        sa.Column("seen_time", sa.DateTime, nullable=False),
        sa.Column("term", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "parts",
        sa.Column("job", sa.String, primary_key=True),
        sa.Column("run", sa.Integer, primary_key=True),
        sa.Column("scheduler", sa.String, primary_key=True),
        sa.Column("entries", sa.BigInteger, nullable=False),
        sa.Column("streams", sa.BigInteger, nullable=False),
        sa.Column("packets", sa.BigInteger, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("lost_packets", sa.BigInteger, nullable=False),
        sa.Column("nodes", sa.JSON, nullable=False),
        sa.Column("matched", sa.BigInteger, nullable=False),
        sa.Column("is_closed", sa.Boolean, nullable=False),
        sa.Column("is_counted", sa.Boolean, nullable=False),
        sa.Column("full_reason", sa.String, nullable=False),
        sa.ForeignKeyConstraint(
            ["job", "run"], ["runs.job", "runs.number"], ondelete="CASCADE", name="parts_run"
        ),
    )
    with op.batch_alter_table("agents") as agents:
        agents.add_column(sa.Column("scheduler", sa.String, nullable=False, server_default=""))
    _make_removals_again(sa.Column("scheduler", sa.String, primary_key=True))


def downgrade() -> None:
    """Remove them; what others have to remove is forgotten."""
    _make_removals_again()
    with op.batch_alter_table("agents") as agents:
        agents.drop_column("scheduler")
    op.drop_table("parts")
    op.drop_table("schedulers")


def _make_removals_again(*more: sa.Column[str]) -> None:
    """A primary key cannot be changed in SQLite, so the table is made again with its rows."""
    rows = op.get_bind().execute(sa.text("SELECT DISTINCT job, run FROM removals")).all()
    op.drop_table("removals")
    table = op.create_table(
        "removals",
        *more,
        sa.Column("job", sa.String, primary_key=True),
        sa.Column("run", sa.Integer, primary_key=True),
    )
    named = {column.name: "" for column in more}
    op.bulk_insert(table, [named | {"job": row.job, "run": row.run} for row in rows])
