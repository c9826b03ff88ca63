"""Every number that the protocol bounds something with, and why it is that number.

Standard library only. `ADVERTISED` is what the daemon tells in its answer to `hello`.
"""

from typing import Final, NamedTuple

KIB: Final = 1024
MIB: Final = 1024 * KIB

PROTOCOL: Final = 1
"""The version of the protocol that this package speaks."""

# --- one message -------------------------------------------------------------------------------

MAX_FRAME_BYTES: Final = 1 * MIB
"""One message to the daemon. The largest useful one is a spawn: argv 512 KiB and an environment."""
MAX_REPLY_BYTES: Final = 64 * MIB
"""One message to a client. A list of 16384 sessions, 32 labels each, stays below it."""
MAX_DEPTH: Final = 16
"""Containers inside one another; the deepest message of this protocol has six."""
MAX_ARRAY_ITEMS: Final = 4096
MAX_MAP_ITEMS: Final = 4096
MAX_ITEMS: Final = 16384
"""Values in one message, containers included: argv and env at their limits need 12 400. Without
it, 1 MiB of one-byte empty maps becomes 70 MiB of objects and 100 ms of the daemon's time."""
MAX_REPLY_ITEMS: Final = 4 * MIB
RECEIVE_BYTES: Final = 16 * KIB
"""What the daemon should read from one client at once: 3000 of the smallest messages, some 10 ms,
so that a client that sends nothing else delays nobody for longer."""
MAX_MSGID: Final = 2**32 - 1
"""MessagePack-RPC: "a 32-bit unsigned integer"."""

# --- one connection ----------------------------------------------------------------------------

MAX_REQUESTS_IN_FLIGHT: Final = 64
MAX_ATTACHMENTS_PER_CLIENT: Final = 256
MAX_CLIENT_NAME_CHARS: Final = 128
MAX_PROTOCOLS: Final = 16

# --- sessions ----------------------------------------------------------------------------------

ID_PATTERN: Final = r"[A-Za-z0-9_-]{1,64}"
"""Also a file name and half of a socket's: no dot, no slash, room left in sun_path."""
NAME_PATTERN: Final = r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff\s/]{1,64}"
LABEL_KEY_PATTERN: Final = r"[A-Za-z0-9._/-]{1,64}"
PLAIN_PATTERN: Final = r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]"
"""No control character, and none that stands for a byte that is not UTF-8."""
LABEL_VALUE_PATTERN: Final = PLAIN_PATTERN + "{0,256}"
MAX_LABELS: Final = 32
MAX_TOKEN_CHARS: Final = 64
"""An instance id or a daemon id."""

MAX_ARGV: Final = 4096
MAX_ARGV_BYTES: Final = 512 * KIB
"""The kernel's own limit is a quarter of the stack limit (2 MiB by default) for argv and env."""
MAX_ENV: Final = 4096
MAX_PATH_BYTES: Final = 4095
"""PATH_MAX without its NUL."""
MAX_DIMENSION: Final = 65535
"""struct winsize has 16 bits for each of rows and cols."""
DEFAULT_ROWS: Final = 24
DEFAULT_COLS: Final = 80
MAX_GENERATION: Final = 2**31 - 1
MAX_SIGNAL: Final = 64

SCROLLBACK_MIN_BYTES: Final = 64 * KIB
SCROLLBACK_DEFAULT_BYTES: Final = 1 * MIB
SCROLLBACK_MAX_BYTES: Final = 64 * MIB

# --- output and input --------------------------------------------------------------------------

MAX_OFFSET: Final = 2**63 - 1
"""Fits the signed integers of every client's language; 290 years at 1 GB/s."""
OUTPUT_CHUNK_BYTES: Final = 64 * KIB
"""The data of one `session.output`: what a reply of the same connection may have to wait for."""
MAX_INPUT_BYTES: Final = 64 * KIB
"""The data of one `session.input`."""
INPUT_QUEUE_BYTES: Final = 1 * MIB
"""Input accepted but not yet read by the program, per session; the shim holds it."""
MAX_READ_BYTES: Final = 256 * KIB
DEFAULT_READ_BYTES: Final = 64 * KIB
PACE_PROGRESS_BYTES: Final = 64 * KIB
PACE_DEADLINE_MS: Final = 2000
"""A paced reader has to take PACE_PROGRESS_BYTES, or all there is, in each such interval."""

# --- time and events ---------------------------------------------------------------------------

DEFAULT_GRACE_MS: Final = 1000
MAX_GRACE_MS: Final = 60_000
KILL_DEADLINE_MS: Final = 10_000
"""How long a kill looks for its proof after the last grace before it answers with survivors."""
MAX_WAIT_MS: Final = 86_400_000
"""One day: longer waits are a loop of the client's."""
MAX_PATTERN_BYTES: Final = 4096
EVENTS_KEPT: Final = 4096

# --- derived -----------------------------------------------------------------------------------


class FrameLimits(NamedTuple):
    """What a decoder refuses to go beyond; each is checked before memory is spent."""

    frame_bytes: int
    items: int
    array_items: int
    map_items: int
    depth: int


TO_DAEMON: Final = FrameLimits(
    frame_bytes=MAX_FRAME_BYTES,
    items=MAX_ITEMS,
    array_items=MAX_ARRAY_ITEMS,
    map_items=MAX_MAP_ITEMS,
    depth=MAX_DEPTH,
)
TO_CLIENT: Final = FrameLimits(
    frame_bytes=MAX_REPLY_BYTES,
    items=MAX_REPLY_ITEMS,
    array_items=MAX_REPLY_ITEMS,
    map_items=MAX_REPLY_ITEMS,
    depth=MAX_DEPTH,
)

ADVERTISED: Final[dict[str, int]] = {
    "frame_bytes": MAX_FRAME_BYTES,
    "reply_bytes": MAX_REPLY_BYTES,
    "depth": MAX_DEPTH,
    "items": MAX_ITEMS,
    "array_items": MAX_ARRAY_ITEMS,
    "map_items": MAX_MAP_ITEMS,
    "requests_in_flight": MAX_REQUESTS_IN_FLIGHT,
    "attachments": MAX_ATTACHMENTS_PER_CLIENT,
    "input_bytes": MAX_INPUT_BYTES,
    "input_queue_bytes": INPUT_QUEUE_BYTES,
    "read_bytes": MAX_READ_BYTES,
    "output_chunk_bytes": OUTPUT_CHUNK_BYTES,
    "scrollback_min_bytes": SCROLLBACK_MIN_BYTES,
    "scrollback_max_bytes": SCROLLBACK_MAX_BYTES,
    "grace_ms": MAX_GRACE_MS,
    "wait_ms": MAX_WAIT_MS,
    "pattern_bytes": MAX_PATTERN_BYTES,
    "labels": MAX_LABELS,
    "events_kept": EVENTS_KEPT,
}
