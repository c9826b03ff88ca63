"""What the modules of the methods have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Answer = dict[str, Any]
Handlers = Mapping[type, Callable[[Any], Awaitable[Answer]]]
"""What answers a request, by its type."""
