"""The route table: sources publish sections, the merge is pure, revisions number it, subscribers apply deltas."""
