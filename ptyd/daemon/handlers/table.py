"""The type of a table from a method's request class to its handler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ptyd.daemon.connection import Client

Handler = Callable[[Client, int | None, Any], object]
Table = dict[type, Handler]
