"""`python -m mailbound.cli` is `mailbound`."""

from mailbound.cli import main

main()
