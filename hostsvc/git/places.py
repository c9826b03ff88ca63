"""Where a worktree and its repository are, read from the files themselves and checked in both directions.

Git answers for the nearest repository above when a folder's own `.git` is missing or broken; nothing may be
decided on such an answer. So the link from the folder to its administrative directory, and the one back, are
read here, without git. Whoever may write into the folder may have written anything there, or made a pipe.

Source: gitrepository-layout(5), git-worktree(1) "DETAILS"
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from hostsvc.git.command import GitUnknown

_MOST_BYTES: Final = 8192
_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""Opening waits for nobody."""


class LinkBroken(GitUnknown):
    """The links can be read, and lead nowhere or do not agree: not for now, but until somebody mends them."""


@attrs.frozen(kw_only=True)
class Place:
    """A worktree. `git_dir`: its own administrative directory; `common_dir`: its repository's."""

    folder: Path
    git_dir: Path
    common_dir: Path

    @property
    def is_linked(self) -> bool:
        """It is one of several of a repository, not the repository's own."""
        return self.git_dir != self.common_dir


def find_place(folder: Path) -> Place:
    """Return where a folder's repository is.

    Raises:
        LinkBroken: it is no worktree, or one whose links do not agree.
        GitUnknown: they cannot be read.
    """
    mark = folder / ".git"
    with _explained():
        mode = os.lstat(mark).st_mode
        if stat.S_ISDIR(mode):
            return Place(folder=folder, git_dir=mark, common_dir=mark)
        if not stat.S_ISREG(mode):
            raise LinkBroken("its .git is neither a directory nor a file")
        git_dir = _read_link(mark, folder)
        common = resolve(git_dir, read_line(git_dir / "commondir"))
        back = resolve(git_dir, read_line(git_dir / "gitdir"))
    if not _is_same(back, mark):
        raise LinkBroken("its repository registers another folder in its place")
    return Place(folder=folder, git_dir=git_dir, common_dir=common)


def find_submodule(folder: Path) -> Place:
    """Return where a submodule's repository is: only its folder says so. Otherwise as `find_place`."""
    mark = folder / ".git"
    with _explained():
        git_dir = mark if mark.is_dir() else _read_link(mark, folder)
    return Place(folder=folder, git_dir=git_dir, common_dir=git_dir)


def find_repository(path: Path) -> Path:
    """Return the repository's own directory for the path of one: its folder, a worktree of it, or a bare one.

    Raises:
        GitUnknown: it is none; one around it does not count.
    """
    if os.path.lexists(path / ".git"):
        return find_place(path).common_dir
    if (path / "objects").is_dir() and (path / "HEAD").is_file():
        return path
    raise GitUnknown("it is no git repository")


def _read_link(mark: Path, folder: Path) -> Path:
    line = read_line(mark)
    if not line.startswith("gitdir: "):
        raise LinkBroken("its .git file says nothing")
    return resolve(folder, line.removeprefix("gitdir: "))


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise LinkBroken(f"its .git leads nowhere: {error.strerror}") from error
    except OSError as error:
        raise GitUnknown(f"its .git cannot be read: {error.strerror}") from error


def read_line(path: Path) -> str:
    """Return the path that one of git's files has in it, without waiting for anybody.

    Raises:
        LinkBroken: what is there can be no path.
        OSError: it cannot be read.
    """
    fd = os.open(path, _FLAGS)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise LinkBroken(f"{path.name} is no file")
        data = os.read(fd, _MOST_BYTES + 1)
    finally:
        os.close(fd)
    if len(data) > _MOST_BYTES or b"\0" in data:
        raise LinkBroken(f"{path.name} has no path in it")
    try:
        return data.decode().rstrip("\n")
    except UnicodeDecodeError:
        raise LinkBroken(f"{path.name} is no UTF-8") from None


def resolve(start: Path, text: str) -> Path:
    return Path(os.path.normpath(start / text))


def _is_same(one: Path, other: Path) -> bool:
    try:
        return os.path.samestat(os.lstat(one), os.lstat(other))
    except OSError:
        return False
