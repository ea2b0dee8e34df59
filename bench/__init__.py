"""The figures that Mooring promises, measured: `make bench`, or `python -m bench NAME …` for some of them."""
