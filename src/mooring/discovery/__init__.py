"""Route sources outside Mooring: a file, Redis. Imports no other feature."""
