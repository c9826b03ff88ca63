"""Paths of workspaces on disk: made and moved by descriptor, never through a link.

Owns, with `removal`, every change to the file system below the base directory. Everything is looked up
relative to an open directory, without following links, and device and inode are checked just before acting;
what does not match is left alone.

Source: openat(2) and O_NOFOLLOW, renameat(2)
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
CREDENTIAL, ARTIFACTS = SIBLING_SUFFIXES = (".cred.sh", "-artifacts")
"""What stands beside a workspace's folder: no folder may be called so."""

PLACE: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC  # needs no right to list it
DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


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
        fd = os.open(path, DIRECTORY)
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
    fd = os.open("/", PLACE)
    try:
        for part in path.strip("/").split("/"):
            inner = os.open(part, PLACE, dir_fd=fd)
            os.close(fd)
            fd = inner
        return identity_of(os.fstat(fd))
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


def aliases(path: str, base: str) -> list[str]:
    """Return what else a path is called, as far as the base is reached through a link."""
    real = os.path.realpath(base)
    return [
        other + path.removeprefix(one)
        for one, other in ((base, real), (real, base))
        if one != other and f"{path}/".startswith(f"{one}/")
    ]


def check_entry_name(name: str) -> None:
    """Refuse what names neither a folder nor its artifacts.

    Raises:
        PathRefused: as `check_folder_name`.
    """
    check_folder_name(name.removesuffix(ARTIFACTS))


def make_folder(base_fd: int, name: str) -> Identity:
    """Make a folder below the base, or find the empty one that an interrupted attempt left.

    Raises:
        PathRefused: something else has that name, or it cannot be made.
    """
    check_entry_name(name)
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=base_fd)
        with opened(base_fd, name) as fd:
            if os.listdir(fd):
                raise PathRefused(f"{name} is there already and not empty; choose another name, or adopt it")
            return identity_of(os.fstat(fd))
    except OSError as error:
        raise PathRefused(f"cannot make {name}: {error.strerror}") from error


def move_to_trash(base_fd: int, name: str, trash_name: str, expected: Identity) -> bool:
    """Rename a folder of the base into its trash; False when it is gone already.

    Raises:
        PathRefused: it is not the directory that it was, or cannot be moved.
    """
    check_entry_name(name)
    check_entry_name(trash_name)
    try:
        with open_trash(base_fd) as trash_fd:
            return _rename(base_fd, name, trash_fd, trash_name, expected)
    except OSError as error:
        raise PathRefused(f"cannot move {name} to the trash: {error.strerror}") from error


def move_back(base_fd: int, trash_name: str, name: str, expected: Identity) -> bool:
    """Rename something in the trash to where it was; False when it is gone.

    Raises:
        PathRefused: something else is there by now, it is not what was put there, or cannot be moved.
    """
    check_entry_name(name)
    check_entry_name(trash_name)
    try:
        with open_trash(base_fd) as trash_fd:
            return _rename(trash_fd, trash_name, base_fd, name, expected)
    except OSError as error:
        raise PathRefused(f"cannot move {name} out of the trash: {error.strerror}") from error


def _rename(source_fd: int, source: str, target_fd: int, target: str, expected: Identity) -> bool:
    if exists(target_fd, target):
        with opened(target_fd, target, PLACE) as fd:
            check(os.fstat(fd), expected, target)
        return True  # an earlier attempt did it, and was killed before it could say so
    try:
        with opened(source_fd, source, PLACE) as fd:
            check(os.fstat(fd), expected, source)
    except FileNotFoundError:
        return False
    os.rename(source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd)
    os.fsync(target_fd)
    os.fsync(source_fd)
    return True


def make_file(base_fd: int, name: str) -> Identity:
    """Make an empty file of the base that only its owner may read or run.

    Raises:
        PathRefused: something has that name, or it cannot be made.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with opened(base_fd, name, flags, 0o700) as fd:
            return identity_of(os.fstat(fd))
    except OSError as error:
        raise PathRefused(f"cannot make {name}: {error.strerror}") from error


def fill_file(base_fd: int, name: str, expected: Identity, content: bytes) -> None:
    """Write a file that was made before; what it says is told to nobody.

    Raises:
        PathRefused: it is another by now, or cannot be written.
    """
    try:
        with opened(base_fd, name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC) as fd:
            check(os.fstat(fd), expected, name)
            with open(fd, "wb", closefd=False) as file:
                file.write(content)
            os.fsync(fd)
    except OSError as error:
        raise PathRefused(f"cannot write {name}: {error.strerror}") from error


def write_file(dir_fd: int, name: str, content: bytes) -> None:
    """Write a file of ours alone, whole or not at all; on the disk when this returns.

    Raises:
        OSError: it cannot be written.
    """
    draft = f".{name}.draft"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(draft, dir_fd=dir_fd)  # of an attempt that was killed
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(draft, flags, 0o600, dir_fd=dir_fd)
    try:
        with open(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(fd)
        os.rename(draft, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(draft, dir_fd=dir_fd)
        raise
    os.fsync(dir_fd)


@contextlib.contextmanager
def open_trash(base_fd: int) -> Iterator[int]:
    """Open the base's trash, making it when it is not there."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(TRASH, 0o700, dir_fd=base_fd)
    with opened(base_fd, TRASH) as fd:
        yield fd


@contextlib.contextmanager
def opened(dir_fd: int, name: str, flags: int = DIRECTORY, mode: int = 0) -> Iterator[int]:
    fd = os.open(name, flags, mode, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def exists(dir_fd: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def identity_below(base_fd: int, inode: int) -> Identity:
    """Return which one below the base an inode is: its device's number may be another after a boot."""
    return Identity(os.fstat(base_fd).st_dev, inode)


def identity_of(found: os.stat_result) -> Identity:
    return Identity(found.st_dev, found.st_ino)


def check(found: os.stat_result, expected: Identity, name: str, what: str = "directory") -> None:
    """Make sure that something is what it was.

    Raises:
        PathRefused: it is not.
    """
    if identity_of(found) != expected:
        raise PathRefused(f"{name} is not the {what} that it was; it is left alone")
