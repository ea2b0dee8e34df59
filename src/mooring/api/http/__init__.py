"""/api/v1 with FastAPI."""
