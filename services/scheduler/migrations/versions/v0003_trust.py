"""What jobs can be asked for besides, pins, and the agents of each run."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns with what held before, and the table of agents."""
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("run_missed", sa.String, nullable=False, server_default="late"))
        jobs.add_column(sa.Column("pinned", sa.Boolean, nullable=False, server_default="0"))
        jobs.add_column(sa.Column("labels", sa.JSON, nullable=False, server_default="{}"))
        jobs.add_column(sa.Column("description", sa.String, nullable=False, server_default=""))
        jobs.add_column(sa.Column("size_limit", sa.BigInteger, nullable=False, server_default="0"))
        jobs.add_column(sa.Column("on_full", sa.String, nullable=False, server_default="stop"))
    with op.batch_alter_table("runs") as runs:
        runs.add_column(sa.Column("pinned", sa.Boolean, nullable=False, server_default="0"))
        runs.add_column(sa.Column("completeness", sa.String, nullable=False, server_default=""))
    op.create_table(
        "agents",
        sa.Column("job", sa.String, primary_key=True),
        sa.Column("run", sa.Integer, primary_key=True),
        sa.Column("agent_id", sa.String, primary_key=True),
        sa.Column("node", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("join_time", sa.DateTime, nullable=False),
        sa.Column("heard_time", sa.DateTime, nullable=False),
        sa.Column("data_time", sa.DateTime),
        sa.Column("finish_time", sa.DateTime),
        sa.Column("batches", sa.BigInteger, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(
            ["job", "run"], ["runs.job", "runs.number"], ondelete="CASCADE", name="agents_run"
        ),
    )


def downgrade() -> None:
    """Remove them."""
    op.drop_table("agents")
    with op.batch_alter_table("runs") as runs:
        runs.drop_column("completeness")
        runs.drop_column("pinned")
    with op.batch_alter_table("jobs") as jobs:
        for name in ("on_full", "size_limit", "description", "labels", "pinned", "run_missed"):
            jobs.drop_column(name)
