"""`python -m ptyd.shim --runtime DIR [--foreground]`: be the zygote of a runtime directory."""

import sys

from ptyd.shim.start import main

sys.exit(main())
