"""Jobs, their runs, what happened to them, and what is still to be removed."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make all tables. Written out, so that later changes of jobstore.py do not change this."""
    op.create_table(
        "jobs",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("kfl", sa.String, nullable=False),
        sa.Column("start_time", sa.String, nullable=False),
        sa.Column("daily_iterations", sa.Integer, nullable=False),
        sa.Column("duration_minutes", sa.Integer, nullable=False),
        sa.Column("expiration_minutes", sa.Integer, nullable=False),
        sa.Column("body_limit", sa.Integer, nullable=False),
        sa.Column("imported", sa.Boolean, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("create_time", sa.DateTime, nullable=False),
        sa.Column("change_time", sa.DateTime, nullable=False),
        sa.Column("first_start", sa.DateTime, nullable=False),
        sa.Column("planned", sa.Integer, nullable=False),
    )
    op.create_table(
        "runs",
        sa.Column(
            "job", sa.String, sa.ForeignKey("jobs.name", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("start_time", sa.DateTime, nullable=False),
        sa.Column("end_time", sa.DateTime, nullable=False),
        sa.Column("entries", sa.BigInteger, nullable=False),
        sa.Column("streams", sa.BigInteger, nullable=False),
        sa.Column("packets", sa.BigInteger, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("lost_packets", sa.BigInteger, nullable=False),
        sa.Column("nodes", sa.JSON, nullable=False),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("time", sa.DateTime, nullable=False),
        sa.Column("job", sa.String, nullable=False),
        sa.Column("run", sa.Integer),
        sa.Column("from_state", sa.String),
        sa.Column("to_state", sa.String),
        sa.Column("reason", sa.String, nullable=False),
    )
    op.create_index("ix_events_time", "events", ["time"])
    op.create_index("ix_events_job", "events", ["job"])
    op.create_table(
        "removals",
        sa.Column("job", sa.String, primary_key=True),
        sa.Column("run", sa.Integer, primary_key=True),
    )
    op.create_table(
        "revisions",
        sa.Column("list", sa.String, primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False),
    )
