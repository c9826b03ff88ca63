"""Folders of workspaces on disk: made, moved to the trash and removed by descriptor, never through a link.

Owns every change to the file system below the base directory. Everything is looked up relative to an open
directory, without following links, and device and inode are checked just before acting; what does not
match is left alone. Never crosses to another mount, not even to one of the same device.

Source: openat(2) and O_NOFOLLOW, renameat(2), unlinkat(2), proc(5) fdinfo
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

_PLACE: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC  # needs no right to list it
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


LONGEST_PATH_BYTES: Final = 4095  # PATH_MAX without its NUL


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
    if not _is_plain(path):
        raise PathRefused(f"{path[:256]!a} is no plain absolute path below /")
    fd = os.open("/", _PLACE)
    try:
        for part in path.strip("/").split("/"):
            inner = os.open(part, _PLACE, dir_fd=fd)
            os.close(fd)
            fd = inner
        return _identity(os.fstat(fd))
    except OSError as error:
        why = "a link is on the way" if error.errno in (errno.ELOOP, errno.ENOTDIR) else error.strerror
        raise PathRefused(f"{path[:256]!a}: {why}; give the real path of a directory") from error
    finally:
        os.close(fd)


def _is_plain(path: str) -> bool:
    """Tell whether a path has one spelling only: two would be two owners of one folder."""
    # normpath keeps two leading slashes, as POSIX allows.
    return (
        path.startswith("/")
        and not path.startswith("//")
        and path != "/"
        and path.isprintable()
        and os.path.normpath(path) == path
        and len(os.fsencode(path)) <= LONGEST_PATH_BYTES
    )


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
    check_folder_name(trash_name)
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(TRASH, 0o700, dir_fd=base_fd)
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
    check_folder_name(trash_name)
    try:
        with _opened(base_fd, TRASH) as trash_fd:
            if not _exists(trash_fd, trash_name):
                return False
            _remove_folder(trash_fd, trash_name, expected, _mount(trash_fd))
            return True
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not _exists(base_fd, TRASH):
            return False
        raise PathRefused(f"cannot purge {trash_name}: {error.strerror}") from error


def _remove_folder(dir_fd: int, name: str, expected: Identity, mount: bytes) -> None:
    """Remove a directory with everything in it, if it is the expected one and of that mount."""
    with _opened(dir_fd, name, _PLACE) as fd:
        _check(os.fstat(fd), expected, name)
        if _mount(fd) != mount:
            raise OSError(errno.EXDEV, f"something is mounted at {name}")
        _make_listable(fd)
    with _opened(dir_fd, name) as fd:
        _check(os.fstat(fd), expected, name)
        with os.scandir(fd) as entries:
            inner = [entry.name for entry in entries]
        for one in inner:
            found = os.stat(one, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                _remove_folder(fd, one, _identity(found), mount)
            else:
                os.unlink(one, dir_fd=fd)
    os.rmdir(name, dir_fd=dir_fd)


def _mount(fd: int) -> bytes:
    """Return the id of the mount that a descriptor is on: a bind mount has its target's device."""
    with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
        return next(line for line in file if line.startswith(b"mnt_id:"))


def _make_listable(fd: int) -> None:
    """A read-only directory of ours (a module cache, say) is to go as well."""
    mode = stat.S_IMODE(os.fstat(fd).st_mode)
    if mode & 0o700 != 0o700:
        os.chmod(f"/proc/self/fd/{fd}", mode | 0o700)  # fchmod(2) takes no O_PATH descriptor


@contextlib.contextmanager
def _opened(dir_fd: int, name: str, flags: int = _DIRECTORY) -> Iterator[int]:
    fd = os.open(name, flags, dir_fd=dir_fd)
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
