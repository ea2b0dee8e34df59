"""The table of published sections. A change here needs a migration in `store/migrations`; a test compares the two."""

from sqlalchemy import JSON, Column, Integer, String, Table

from mooring.store.metadata import metadata

published_sections = Table(
    "published_sections",
    metadata,
    Column("source", String(32), primary_key=True),
    Column("rank", Integer, nullable=False),
    Column("routes", JSON, nullable=False),
)
