"""The numbers by which servers on one database hear of each other's changes."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the table, with a row for each topic."""
    table = op.create_table(
        "changes",
        sa.Column("topic", sa.String(32), primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(table, [{"topic": topic, "number": 0} for topic in ("accounts", "sections")])


def downgrade() -> None:
    """Not offered: a restore of the backup is what brings an older schema back."""
    raise NotImplementedError
