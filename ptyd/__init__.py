"""ptyd: a PTY session supervisor. Sessions outlive the daemon, and a kill is answered with proof."""

__version__ = "0.1.0"
