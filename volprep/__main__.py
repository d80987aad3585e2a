"""`python -m volprep`."""

from volprep.cli import main

main()
