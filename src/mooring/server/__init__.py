"""The composition root: the only place that picks implementations and builds a role from settings."""
