"""Users, their tokens, tickets and sessions."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "users",
        sa.Column("name", sa.String(20), primary_key=True),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("owner", sa.String(20), sa.ForeignKey("users.name"), nullable=False),
        sa.Column("label", sa.String(100), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False, unique=True),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
    )
    op.create_index("ix_tokens_owner", "tokens", ["owner"])
    op.create_table(
        "tickets",
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("owner", sa.String(20), sa.ForeignKey("users.name"), nullable=False),
        sa.Column("host", sa.String(253), nullable=False),
        sa.Column("next", sa.Text, nullable=False),
        sa.Column("parent", sa.String(32), nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("session_until", sa.Double, nullable=False),
    )
    op.create_index("ix_tickets_owner", "tickets", ["owner"])
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("owner", sa.String(20), nullable=False),
        sa.Column("audience", sa.String(253), nullable=False),
        sa.Column("parent", sa.String(32), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("revoked_at", sa.Double, nullable=False),
    )
    for column in ("owner", "parent", "revoked_at"):
        op.create_index(f"ix_sessions_{column}", "sessions", [column])


def downgrade() -> None:
    """Not offered: a restore of the backup is what brings an older schema back."""
    raise NotImplementedError
