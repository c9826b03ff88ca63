"""`python -m ptyd.cli`: the same as `ptyd`."""

from ptyd.cli import main

main()
