"""The daemon: serves clients, adopts shims, owns no child and no PTY, and may die at any time."""
