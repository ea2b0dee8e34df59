"""`mooring doctor`: what is missing, misconfigured or stale on this machine, and what to type about it.

Reads and asks; changes nothing. Each check is one function that yields findings; a file has those that look at one
thing.
"""
