"""Mooring: a self-hosted cloud development platform."""
