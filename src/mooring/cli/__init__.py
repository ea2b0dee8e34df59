"""The command line: one file a noun; talks to the API."""
