"""Users, tokens, sessions and tickets. Imports no other feature."""
