"""A Go module proxy: what it was asked for once it verifies, keeps and serves, also when the origin is gone.

May import control, settings, model and errors; no other feature. `asgi.py` is the door, `service.py` the use cases.
"""
