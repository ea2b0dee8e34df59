"""The tables of accounts. A change here needs a migration in `store/migrations`; a test compares the two."""

from sqlalchemy import Column, Double, ForeignKey, Index, String, Table, Text

from mooring.store.metadata import metadata

users = Table(
    "users",
    metadata,
    Column("name", String(20), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("created_at", Double, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("owner", String(20), ForeignKey("users.name"), nullable=False),
    Column("label", String(100), nullable=False),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
)
Index("ix_tokens_owner", tokens.c.owner)

tickets = Table(
    "tickets",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("owner", String(20), ForeignKey("users.name"), nullable=False),
    Column("host", String(253), nullable=False),
    Column("next", Text, nullable=False),
    Column("parent", String(32), nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("session_until", Double, nullable=False),
)
Index("ix_tickets_owner", tickets.c.owner)

# No foreign key to users: a revocation outlives the user, for as long as a cookie could.
sessions = Table(
    "sessions",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("owner", String(20), nullable=False),
    Column("audience", String(253), nullable=False),
    Column("parent", String(32), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("revoked_at", Double, nullable=False),
)
Index("ix_sessions_owner", sessions.c.owner)
Index("ix_sessions_parent", sessions.c.parent)
Index("ix_sessions_revoked_at", sessions.c.revoked_at)
