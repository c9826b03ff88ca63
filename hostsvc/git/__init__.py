"""Git worktrees: what would be lost with one, making one, unregistering exactly one.

Git is only ever called through its command line, in `command`; what it says is read in `risk` and `worktree`.
"""
