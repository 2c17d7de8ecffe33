"""The statement of a job with operators' words put in."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; there were no words before."""
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("expanded_kfl", sa.String, nullable=False, server_default=""))


def downgrade() -> None:
    """Remove the column."""
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_column("expanded_kfl")
