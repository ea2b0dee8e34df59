"""`python -m mooring` is the command `mooring`."""

from mooring.cli.main import main

main()
