"""The process runtime: a workspace is a group of the machine's processes, led by a keeper that outlives the server.

`runtime` is the server's end; `keeper` is the program of its own. `procfs`, `membership` and `cgroups` talk to the
kernel. Nothing is imported here: a keeper loads this package without third parties.
"""
