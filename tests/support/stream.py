r"""A numbered stream: output whose every byte is known from its offset.

Line n is sixteen bytes, `b"%015d\n" % n`, and the program turns the terminal's output processing
off, so offset o of the stream holds byte o % 16 of line o // 16. Whatever a reader gets, from any
cut and across any gap, can be checked byte for byte: nothing lost, doubled, torn or moved.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

LINE_BYTES: Final = 16
PROGRAMS: Final = Path(__file__).parent / "programs"
_BLOCK_LINES: Final = 1000


def script(name: str, *arguments: object) -> list[str]:
    """Return the argv that runs a program of `programs/` quickly and without our settings."""
    # No site-packages, no PYTHON* settings: it starts in some 10 ms and is not measured.
    return [sys.executable, "-S", "-E", str(PROGRAMS / f"{name}.py"), *map(str, arguments)]


def numbered_program(
    lines: int = 0,
    *,
    pause_ms: int = 0,
    exit_code: int = 0,
    progress: Path | None = None,
    go: Path | None = None,
) -> list[str]:
    """Return the argv of a program that writes the numbered stream as fast as it can.

    Args:
        lines: How many lines; 0 is without end.
        pause_ms: Sleep between blocks of 1000 lines.
        exit_code: What it ends with after `lines`.
        progress: A file that holds the number of lines written so far; see `lines_written`.
        go: Start writing when this file exists.
    """
    options: list[object] = ["--lines", lines, "--pause-ms", pause_ms, "--exit-code", exit_code]
    options += ["--progress", progress] if progress else []
    options += ["--go", go] if go else []
    return script("numbered", *options)


def lines_written(progress: Path) -> int:
    """Return how far a program with `progress` is: lines that its PTY has taken."""
    try:
        return int(progress.read_bytes() or b"0")
    except FileNotFoundError:
        return 0


def expected(offset: int, size: int) -> bytes:
    """Return the `size` bytes at `offset` of the numbered stream."""
    first, skip = divmod(offset, LINE_BYTES)
    last = (offset + size + LINE_BYTES - 1) // LINE_BYTES
    blocks = range(first // _BLOCK_LINES, last // _BLOCK_LINES + 1)
    start = (first % _BLOCK_LINES) * LINE_BYTES + skip
    return b"".join(map(_block, blocks))[start : start + size]


def _block(number: int) -> bytes:
    return _BLOCK.replace(_NUMBER, b"%012d" % number)


_NUMBER: Final = b"#" * 12
_BLOCK: Final = b"".join(_NUMBER + b"%03d\n" % n for n in range(_BLOCK_LINES))


def check_numbered(data: bytes, offset: int, origin: int = 0) -> None:
    """Check that `data` is exactly what the stream has at `offset`.

    Args:
        data: What a reader got.
        offset: The output offset of its first byte.
        origin: The output offset at which the stream starts, after a shell's prompt, say.

    Raises:
        AssertionError: naming the first wrong byte.
    """
    wanted = expected(offset - origin, len(data))
    if data == wanted:
        return
    at = next(i for i, (got, want) in enumerate(zip(data, wanted, strict=True)) if got != want)
    raise AssertionError(
        f"wrong byte at offset {offset + at} ({at} into {len(data)} bytes): "
        f"{data[max(0, at - 16) : at + 32]!r}, expected {wanted[max(0, at - 16) : at + 32]!r}"
    )


class StreamChecker:
    """Checks what one reader is told, in order: exact bytes, no overlap, every hole announced."""

    def __init__(self, offset: int = 0, origin: int = 0) -> None:
        """Expect the next byte at `offset`, of a stream that starts at `origin`."""
        self.next_offset = offset
        self.received_bytes = 0
        self.gaps: list[tuple[int, int]] = []
        self._origin = origin

    def feed(self, offset: int, data: bytes) -> None:
        """Take output. Raises AssertionError unless it goes on exactly where the last one ended."""
        assert offset == self.next_offset, f"output at {offset}, expected {self.next_offset}"
        check_numbered(data, offset, self._origin)
        self.next_offset += len(data)
        self.received_bytes += len(data)

    def gap(self, start: int, end: int) -> None:
        """Take the word that bytes `start` to `end` are gone; they must be the very next ones."""
        assert start == self.next_offset, f"gap from {start}, expected {self.next_offset}"
        assert end > start, f"gap from {start} to {end}"
        self.gaps.append((start, end))
        self.next_offset = end

    @property
    def gap_bytes(self) -> int:
        return sum(end - start for start, end in self.gaps)
