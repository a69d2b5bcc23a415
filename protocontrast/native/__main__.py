"""`python -m protocontrast.native`: compile the sources, again or for the first time."""

from protocontrast.native.build import main

main()
