"""The reaper: one engine, one file for each kind of thing it looks for.

Observe the resource first and its ownership second; decide (pure, in `policy`); gate; look again at each one
just before acting; act; confirm; record. Everything rests on `engine`; a kind knows only its own subject.
"""
