"""Folders of workspaces on disk: made, moved to the trash and removed by descriptor, never through a link.

Owns every change to the file system below the base directory. Everything is looked up relative to an open
directory, without following links, and device and inode are checked just before acting; what does not
match is left alone. Never crosses to another device.

Source: openat(2) and O_NOFOLLOW, renameat(2), unlinkat(2)
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from typing import Final, NamedTuple

TRASH: Final = ".trash"
FOLDER_PATTERN: Final = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}"
"""One component, no leading dot, the same on every file system."""
SIBLING_SUFFIXES: Final = (".cred.sh", "-artifacts")
"""What stands beside a workspace's folder: no folder may be called so."""

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class PathRefused(Exception):
    """The path cannot be used, or is not what it was; the message says why. Nothing was changed."""


class Identity(NamedTuple):
    """Which directory it is, whatever its name."""

    device: int
    inode: int


def check_folder_name(name: str) -> None:
    """Refuse what is not one plain component.

    Raises:
        PathRefused: it has separators, dots to climb with, control characters, or is a sibling's name.
    """
    if not re.fullmatch(FOLDER_PATTERN, name) or name.endswith(SIBLING_SUFFIXES):
        raise PathRefused(
            f"{name[:64]!a} cannot name a folder: 1 to 64 characters A-Z a-z 0-9 . _ -, no dot first, "
            f"not ending in {' or '.join(SIBLING_SUFFIXES)}"
        )


def open_base(path: str) -> int:
    """Open the base directory, making it (0700) when it is not there.

    Raises:
        PathRefused: it is a link, somebody else's, or open for others to write.
    """
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        fd = os.open(path, _DIRECTORY)
    except OSError as error:
        raise PathRefused(f"base directory {path}: {error.strerror}") from error
    found = os.fstat(fd)
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022:
        os.close(fd)
        raise PathRefused(f"base directory {path} is not yours alone to write; chmod 700, or choose another")
    return fd


def identify(path: str) -> Identity:
    """Return which directory an absolute path leads to, refusing every link on the way.

    Raises:
        PathRefused: it is relative, not plain, missing, not a directory, or goes through a link.
    """
    if not path.startswith("/") or os.path.normpath(path) != path or path == "/":
        raise PathRefused(f"{path[:256]!a} is no plain absolute path below /")
    if "\0" in path or len(os.fsencode(path)) > 4095:
        raise PathRefused("the path is longer than a path can be")
    fd = os.open("/", _DIRECTORY)
    try:
        for part in path.strip("/").split("/"):
            inner = os.open(part, _DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = inner
        return _identity(os.fstat(fd))
    except OSError as error:
        why = "a link is on the way" if error.errno in (errno.ELOOP, errno.ENOTDIR) else error.strerror
        raise PathRefused(f"{path}: {why}; give the real path of a directory") from error
    finally:
        os.close(fd)


def make_folder(base_fd: int, name: str) -> Identity:
    """Make a folder below the base, or find the empty one that an interrupted attempt left.

    Raises:
        PathRefused: something else has that name, or it cannot be made.
    """
    check_folder_name(name)
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=base_fd)
        with _opened(base_fd, name) as fd:
            if os.listdir(fd):
                raise PathRefused(f"{name} is there already and not empty; choose another name, or adopt it")
            return _identity(os.fstat(fd))
    except OSError as error:
        raise PathRefused(f"cannot make {name}: {error.strerror}") from error


def move_to_trash(base_fd: int, name: str, trash_name: str, expected: Identity) -> bool:
    """Rename a folder of the base into its trash; False when it is gone already.

    Raises:
        PathRefused: it is not the directory that it was, or cannot be moved.
    """
    check_folder_name(name)
    with contextlib.suppress(FileExistsError):
        os.mkdir(TRASH, 0o700, dir_fd=base_fd)
    try:
        with _opened(base_fd, TRASH) as trash_fd:
            if _exists(trash_fd, trash_name):
                return True  # an earlier attempt did it, and was killed before it could say so
            try:
                with _opened(base_fd, name) as fd:
                    _check(os.fstat(fd), expected, name)
            except FileNotFoundError:
                return False
            os.rename(name, trash_name, src_dir_fd=base_fd, dst_dir_fd=trash_fd)
            os.fsync(trash_fd)
            os.fsync(base_fd)
            return True
    except OSError as error:
        raise PathRefused(f"cannot move {name} to the trash: {error.strerror}") from error


def purge(base_fd: int, trash_name: str, expected: Identity) -> bool:
    """Remove something from the trash for good; False when it is gone already.

    Raises:
        PathRefused: it is not what was put there, or part of it cannot be removed.
    """
    try:
        with _opened(base_fd, TRASH) as trash_fd:
            with _opened(trash_fd, trash_name) as fd:
                _check(os.fstat(fd), expected, trash_name)
                _empty(fd, expected.device)
            os.rmdir(trash_name, dir_fd=trash_fd)
            return True
    except FileNotFoundError:
        return False
    except OSError as error:
        raise PathRefused(f"cannot purge {trash_name}: {error.strerror}") from error


def _empty(dir_fd: int, device: int) -> None:
    """Remove everything in a directory, staying on its device."""
    with os.scandir(dir_fd) as entries:
        names = [entry.name for entry in entries]
    for name in names:
        found = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        if found.st_dev != device:
            raise OSError(errno.EXDEV, f"{name} is on another device")
        if not stat.S_ISDIR(found.st_mode):
            os.unlink(name, dir_fd=dir_fd)
            continue
        _make_listable(dir_fd, name, found)
        with _opened(dir_fd, name) as fd:
            _check(os.fstat(fd), _identity(found), name)
            _empty(fd, device)
        os.rmdir(name, dir_fd=dir_fd)


def _make_listable(dir_fd: int, name: str, found: os.stat_result) -> None:
    """A read-only directory of ours (a module cache, say) is to go as well."""
    if stat.S_IMODE(found.st_mode) & 0o700 == 0o700:
        return
    # chmod has no way not to follow links here, so it goes through a descriptor that is no link.
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        os.chmod(f"/proc/self/fd/{fd}", stat.S_IMODE(found.st_mode) | 0o700)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _opened(dir_fd: int, name: str) -> Iterator[int]:
    fd = os.open(name, _DIRECTORY, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def _exists(dir_fd: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _identity(found: os.stat_result) -> Identity:
    return Identity(found.st_dev, found.st_ino)


def _check(found: os.stat_result, expected: Identity, name: str) -> None:
    if _identity(found) != expected:
        raise PathRefused(f"{name} is not the directory that it was; it is left alone")
