"""`python -m ptyd.daemon`: started by the zygote, which hands it the descriptor of their link."""

import sys

from ptyd.daemon.main import main

sys.exit(main())
