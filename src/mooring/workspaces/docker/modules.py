"""The way from a container to the module proxy, which is no address of the machine.

A unix socket that serves nothing else is mounted into the container, and a forwarder inside it listens at the
container's own 127.0.0.1.
"""

ADDRESS = "http://127.0.0.1:9998/goproxy"
"""Where the go command inside a container asks."""
