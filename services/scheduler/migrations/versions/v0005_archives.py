"""What each scheduler has copied to the archive, and what is to be removed there."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "archives",
        sa.Column("job", sa.String, primary_key=True),
        sa.Column("run", sa.Integer, primary_key=True),
        sa.Column("scheduler", sa.String, primary_key=True),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("copy_time", sa.DateTime),
        sa.Column("error", sa.String, nullable=False),
        sa.Column("is_asked", sa.Boolean, nullable=False),
        sa.ForeignKeyConstraint(
            ["job", "run"], ["runs.job", "runs.number"], ondelete="CASCADE", name="archives_run"
        ),
    )
    op.create_table(
        "archive_removals",
        sa.Column("scheduler", sa.String, primary_key=True),
        sa.Column("job", sa.String, primary_key=True),
        sa.Column("run", sa.Integer, primary_key=True),
    )


def downgrade() -> None:
    """Remove them; what is in the archive stays there."""
    op.drop_table("archive_removals")
    op.drop_table("archives")
