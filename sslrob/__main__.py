"""`python -m sslrob`."""

from sslrob.cli import main

main()
