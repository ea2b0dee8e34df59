"""Pure values and rules: names, workspaces, templates, routes, grants, activity. No I/O and no asyncio here."""
