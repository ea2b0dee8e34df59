"""Workspaces: the service, its reconciler, templates, stores and runtimes. Imports no other feature."""
