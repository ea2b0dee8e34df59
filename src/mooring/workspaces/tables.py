"""The tables of workspaces. A change here needs a migration in `store/migrations`; a test compares the two."""

from sqlalchemy import JSON, BigInteger, Column, Double, Index, Integer, String, Table, Text, text

from mooring.store.metadata import metadata

workspaces = Table(
    "workspaces",
    metadata,
    Column("id", String(10), primary_key=True),
    Column("owner", String(20), nullable=False),
    Column("name", String(32), nullable=False),
    Column("spec", JSON, nullable=False),
    Column("desired", String(16), nullable=False),
    Column("phase", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("started", JSON),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("active_at", Double),
    Column("awake_until", Double, nullable=False),
    Column("limited", JSON, nullable=False),
)
# A workspace that is being deleted does not hold its name.
_not_deleted = text("desired <> 'deleted'")
Index(
    "uq_workspaces_owner_name",
    workspaces.c.owner,
    workspaces.c.name,
    unique=True,
    sqlite_where=_not_deleted,
    postgresql_where=_not_deleted,
)

events = Table(
    "events",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("workspace", String(10), nullable=False),
    Column("at", Double, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("text", Text, nullable=False),
    Column("data", JSON, nullable=False),
    # Without it SQLite gives the id of a removed event again, and a reader that resumes there misses the new one.
    sqlite_autoincrement=True,
)
Index("ix_events_workspace_id", events.c.workspace, events.c.id)

templates = Table(
    "templates",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("document", JSON, nullable=False),
)
