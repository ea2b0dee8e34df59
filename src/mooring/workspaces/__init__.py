"""Workspaces: the service, its reconciler, templates and stores. Imports no other feature.

`processes` and `docker` are the two runtimes. Core imports neither; the composition root does. Each package's
docstring says what stands in it. Nothing is imported here: a keeper loads this package without third parties.
"""
