"""The gateway: the agent that composes the table from its sources, nginx, and Lua. Imports no other feature."""
