"""What lives below the daemon: the zygote, the shims it forks, and the link they are spoken to over.

Standard library and ptyprocess only, so that a shim costs little and its code rarely has to change.
"""
