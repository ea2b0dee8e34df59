"""The Docker runtime: a workspace is a container with a network and a volume of its own."""
