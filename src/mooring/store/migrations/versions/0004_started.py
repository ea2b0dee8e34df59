"""What a workspace was started with, whole: it says whether a change waits for the next start."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Take the specification of now for that of the last start."""
    op.add_column("workspaces", sa.Column("started", sa.JSON))
    op.execute("UPDATE workspaces SET started = spec WHERE started_version > 0")
    op.drop_column("workspaces", "started_version")
