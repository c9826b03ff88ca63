"""The host service: an index of workspaces and sessions that never says "disposed" of what lives.

It decides that something should go; ptyd owns the PTYs and proves their end.
"""

from ptyd import __version__ as __version__
