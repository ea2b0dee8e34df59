"""Tasks with owners, a serial-per-key work queue, the reconcile loop, backoff and the clock."""
