"""`python -m hostsvc`: the same as `hostsvc`."""

from hostsvc.cli import main

main()
