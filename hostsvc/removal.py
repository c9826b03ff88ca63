"""Removing for good: by descriptor, never through a link, one level at a time however deep it goes.

Owns what is done to the trash's content when it goes. Never crosses to another mount, not even to one of the
same device. Device and inode of each directory are checked on the way down and on the way up.

Source: unlinkat(2), proc(5) fdinfo
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hostsvc.tree import (
    DIRECTORY,
    PLACE,
    TRASH,
    Identity,
    PathRefused,
    check,
    check_entry_name,
    exists,
    identity_of,
    opened,
)

MOST_MEASURED: Final = 20_000
"""Entries that are looked at for a size; more are not worth the time."""


def purge(base_fd: int, trash_name: str, expected: Identity) -> bool:
    """Remove something from the trash for good; False when it is gone already.

    Raises:
        PathRefused: it is not what was put there, or part of it cannot be removed.
    """
    check_entry_name(trash_name)
    try:
        with opened(base_fd, TRASH) as trash_fd:
            if not exists(trash_fd, trash_name):
                return False
            remove_folder(trash_fd, trash_name, expected)
            return True
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not exists(base_fd, TRASH):
            return False
        raise PathRefused(f"cannot purge {trash_name}: {error.strerror}") from error


def remove_folder(dir_fd: int, name: str, expected: Identity) -> None:
    """Remove a directory with everything in it, if it is the expected one; two descriptors at any depth.

    Raises:
        PathRefused: it, or something in it, is another by now.
        OSError: part of it cannot be removed.
    """
    mount = _mount(dir_fd)
    fd = _enter(dir_fd, name, expected, mount)
    levels: list[tuple[str, Identity, Iterator[str]]] = [(name, expected, iter(os.listdir(fd)))]
    try:
        while levels:
            inner = next(levels[-1][2], None)
            if inner is None:
                done = levels.pop()[0]
                fd = _climb(fd, levels[-1][1] if levels else None, dir_fd)
                os.rmdir(done, dir_fd=fd)
                continue
            found = os.stat(inner, dir_fd=fd, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                os.unlink(inner, dir_fd=fd)
                continue
            below = _enter(fd, inner, identity_of(found), mount)
            os.close(fd)
            fd = below
            levels.append((inner, identity_of(found), iter(os.listdir(fd))))
    finally:
        os.close(fd)


def remove_path(path: Path) -> None:
    """Remove a directory as it is now, wherever it is.

    Raises:
        PathRefused, OSError: as `remove_folder`.
    """
    fd = os.open(path.parent, DIRECTORY)
    try:
        remove_folder(fd, path.name, identity_of(os.lstat(path)))
    finally:
        os.close(fd)


def remove_empty(base_fd: int, name: str) -> bool:
    """Remove a folder of the base that is empty, or gone already; False when there is something in it.

    Raises:
        OSError: it cannot be removed.
    """
    check_entry_name(name)
    try:
        os.rmdir(name, dir_fd=base_fd)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            return False
        raise
    return True


def _enter(dir_fd: int, name: str, expected: Identity, mount: bytes) -> int:
    with opened(dir_fd, name, PLACE) as fd:
        check(os.fstat(fd), expected, name)
        if _mount(fd) != mount:
            raise OSError(errno.EXDEV, f"something is mounted at {name}")
        _make_listable(fd)
    fd = os.open(name, DIRECTORY, dir_fd=dir_fd)
    try:
        check(os.fstat(fd), expected, name)
    except PathRefused:
        os.close(fd)
        raise
    return fd


def _climb(fd: int, expected: Identity | None, top_fd: int) -> int:
    """Go up one level, to the directory that we came from."""
    above = os.dup(top_fd) if expected is None else os.open("..", DIRECTORY, dir_fd=fd)
    if expected is not None and identity_of(os.fstat(above)) != expected:
        os.close(above)
        raise PathRefused("a folder was moved while it was removed; the rest is left alone")
    os.close(fd)
    return above


def unlink(dir_fd: int, name: str, expected: Identity | None) -> bool:
    """Remove a file for good; False when it is gone already. Says nothing of its content.

    Args:
        dir_fd: Where it is.
        name: Its name.
        expected: Which file it has to be. If nobody knows, it goes only when nothing is in it.

    Raises:
        PathRefused: it is another, or cannot be removed.
    """
    try:
        found = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        if expected is None and found.st_size:
            return False
        if not stat.S_ISREG(found.st_mode) or expected not in (None, identity_of(found)):
            raise PathRefused(f"{name} is not the file that it was; it is left alone")
        os.unlink(name, dir_fd=dir_fd)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise PathRefused(f"cannot remove {name}: {error.strerror}") from error
    return True


def measure(folder: str) -> int | None:
    """Return how many bytes the files below a folder have; None when there are too many to count."""
    total = seen = 0
    for parent, directories, files in os.walk(folder):
        seen += len(directories) + len(files)
        if seen > MOST_MEASURED:
            return None
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


def _mount(fd: int) -> bytes:
    """Return the id of the mount that a descriptor is on: a bind mount has its target's device."""
    with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
        return next(line for line in file if line.startswith(b"mnt_id:"))


def _make_listable(fd: int) -> None:
    """A read-only directory of ours (a module cache, say) is to go as well."""
    mode = stat.S_IMODE(os.fstat(fd).st_mode)
    if mode & 0o700 != 0o700:
        os.chmod(f"/proc/self/fd/{fd}", mode | 0o700)  # fchmod(2) takes no O_PATH descriptor
