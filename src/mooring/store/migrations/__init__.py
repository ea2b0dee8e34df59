"""Schema migrations, shipped in the package. `versions/NNNN_what.py`, each with the one before as its parent."""
