"""Folders on a real disk: what is refused, what is left alone, and that nothing outside the base changes."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostsvc import removal
from hostsvc.removal import measure, purge
from hostsvc.tree import (
    PLACE,
    TRASH,
    Identity,
    PathRefused,
    check_folder_name,
    identify,
    make_folder,
    move_to_trash,
    open_base,
)

NOBODY = 65534
is_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root's rights")


class Base:
    """A base directory with a neighbour whose name it begins, both filled."""

    def __init__(self, directory: Path) -> None:
        self.outside = directory
        self.path = directory / "base"
        self.fd = open_base(str(self.path))
        for other in ("base-evil", "elsewhere"):
            (directory / other / "w").mkdir(parents=True)
            (directory / other / "w" / "precious").write_text("precious")

    def make(self, name: str = "w") -> Identity:
        identity = make_folder(self.fd, name)
        (self.path / name / "inner").mkdir()
        (self.path / name / "inner" / "file").write_text("work")
        return identity

    def trash(self, name: str = "w", trash_name: str = "t") -> Identity:
        identity = self.make(name)
        assert move_to_trash(self.fd, name, trash_name, identity)
        return identity

    def snapshot(self) -> list[tuple[str, int]]:
        """Everything there is around the base, by name, with its identity."""
        found = [
            (os.path.join(at, name), os.lstat(os.path.join(at, name)).st_ino)
            for at, folders, files in os.walk(self.outside)
            for name in [*folders, *files]
        ]
        return sorted(found)


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Base]:
    base = Base(tmp_path)
    yield base
    os.close(base.fd)


@contextlib.contextmanager
def nothing_changes(base: Base) -> Iterator[None]:
    before = base.snapshot()
    with pytest.raises(PathRefused) as refused:
        yield
    assert base.snapshot() == before
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 600


# --- names ---------------------------------------------------------------------------------------

BAD_NAMES = [
    "", ".", "..", "/", "/etc", "a/b", "../base-evil", "w/..", "w/", "./w", ".hidden", TRASH, "-rf", "~",
    "a\0b", "a\nb", "\x1b[2J", "a b", "ä", "w.cred.sh", "w-artifacts-artifacts", "x" * 65,
    "x" * 4096, "\udcff",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
def test_A3_names_that_are_not_one_plain_component(base: Base, name: str) -> None:
    identity = base.make()
    with nothing_changes(base):
        make_folder(base.fd, name)
    with nothing_changes(base):
        move_to_trash(base.fd, name, "t", identity)
    with nothing_changes(base):
        move_to_trash(base.fd, "w", name, identity)
    with nothing_changes(base):
        purge(base.fd, name, identity)


@given(st.text(max_size=70))
def test_A3_every_name_is_plain_or_refused(name: str) -> None:
    try:
        check_folder_name(name)
    except PathRefused:
        return
    assert os.path.normpath(name) == name == os.path.basename(name)
    assert name.isascii()
    assert name[0] not in ".-"


@pytest.mark.parametrize("name", ["w.cred.sh", "w-artifacts"])
def test_A3_what_stands_beside_a_folder_names_none(name: str) -> None:
    with pytest.raises(PathRefused):
        check_folder_name(name)


# --- paths that are adopted ----------------------------------------------------------------------


def test_identify_a_plain_directory(base: Base) -> None:
    found = (base.outside / "elsewhere").stat()
    assert identify(str(base.outside / "elsewhere")) == (found.st_dev, found.st_ino)


BAD_PATHS = [
    "", ".", "/", "//", "relative", "./x", "{base}/..", "{base}/../base", "{base}/", "/{base}", "{base}//w",
    "{base}/./w", "{base}/missing", "{base}/a\nb", "{base}/a\0b", "{base}/\x1b[31m", "{base}/\udcff",
    "/" + "x" * 255 + "/x" * 2000, "{base}/" + "x" * 300,
]  # fmt: skip


@pytest.mark.parametrize("path", BAD_PATHS)
def test_A3_paths_that_cannot_be_adopted(base: Base, path: str) -> None:
    base.make()
    with nothing_changes(base):
        identify(path.replace("{base}", str(base.path)))


def test_A3_a_link_on_the_way_or_at_the_end(base: Base) -> None:
    (base.path / "link").symlink_to(base.outside / "elsewhere")
    for path in (base.path / "link", base.path / "link" / "w"):
        with nothing_changes(base):
            identify(str(path))


def test_A3_a_file_is_no_directory(base: Base) -> None:
    with nothing_changes(base):
        identify(str(base.outside / "elsewhere" / "w" / "precious"))


@is_root
def test_a_parent_that_may_be_passed_but_not_listed(base: Base) -> None:
    """As /home often is."""
    (base.outside / "elsewhere").chmod(0o711)
    os.chown(base.outside / "elsewhere" / "w", NOBODY, NOBODY)
    root = os.open(base.outside, os.O_PATH)
    with as_nobody(root):
        with pytest.raises(PermissionError):
            os.listdir(f"/proc/self/fd/{root}/elsewhere")
        opened = os.open("elsewhere", PLACE, dir_fd=root)
        os.close(os.open("w", PLACE, dir_fd=opened))
        os.close(opened)
    os.close(root)


@contextlib.contextmanager
def as_nobody(fd: int) -> Iterator[None]:
    """Give up root's rights, and own what the descriptor leads to."""
    os.chown(f"/proc/self/fd/{fd}", NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


# --- the base ------------------------------------------------------------------------------------


def test_a_new_base_is_ours_alone(tmp_path: Path) -> None:
    os.close(open_base(str(tmp_path / "new" / "base")))
    assert stat.S_IMODE((tmp_path / "new" / "base").stat().st_mode) == 0o700


def test_a_base_that_cannot_be_trusted(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o775)
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "file").touch()
    for name in ("open", "link", "file", "file/below"):
        with pytest.raises(PathRefused):
            open_base(str(tmp_path / name))


@is_root
def test_a_base_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir(mode=0o700)
    os.chown(tmp_path / "base", NOBODY, NOBODY)
    with pytest.raises(PathRefused):
        open_base(str(tmp_path / "base"))


# --- making --------------------------------------------------------------------------------------


def test_making_twice_finds_the_empty_one(base: Base) -> None:
    assert make_folder(base.fd, "w") == make_folder(base.fd, "w")
    assert stat.S_IMODE((base.path / "w").stat().st_mode) == 0o700


def test_what_is_there_is_not_taken(base: Base) -> None:
    base.make("full")
    (base.path / "file").write_text("x")
    (base.path / "link").symlink_to(base.outside / "elsewhere")
    for name in ("full", "file", "link"):
        with nothing_changes(base):
            make_folder(base.fd, name)


# --- to the trash --------------------------------------------------------------------------------


def test_A1_to_the_trash_and_away(base: Base) -> None:
    identity = base.make()
    before = [entry for entry in base.snapshot() if "/base/" not in entry[0]]
    assert move_to_trash(base.fd, "w", "t", identity)
    assert (base.path / TRASH / "t" / "inner" / "file").read_text() == "work"
    assert purge(base.fd, "t", identity)
    assert os.listdir(base.path / TRASH) == []
    assert [entry for entry in base.snapshot() if "/base/" not in entry[0]] == before


def test_A2_what_is_gone_is_gone(base: Base) -> None:
    identity = base.make()
    assert move_to_trash(base.fd, "w", "t", identity)
    assert move_to_trash(base.fd, "w", "t", identity), "an earlier attempt was killed before it could say so"
    assert not move_to_trash(base.fd, "never", "u", identity)
    assert purge(base.fd, "t", identity)
    assert not purge(base.fd, "t", identity)
    (base.path / TRASH).rmdir()
    assert not purge(base.fd, "t", identity)


def test_B21_replaced_between_plan_and_act(base: Base) -> None:
    identity = base.make()
    (base.path / "w").rename(base.path / "kept")
    base.make()
    with nothing_changes_but_the_trash(base):
        move_to_trash(base.fd, "w", "t", identity)


@contextlib.contextmanager
def nothing_changes_but_the_trash(base: Base) -> Iterator[None]:
    (base.path / TRASH).mkdir(exist_ok=True)
    with nothing_changes(base):
        yield


def test_B21_replaced_by_a_link(base: Base) -> None:
    identity = base.make()
    (base.path / "w").rename(base.path / "kept")
    (base.path / "w").symlink_to(base.outside / "elsewhere")
    with nothing_changes_but_the_trash(base):
        move_to_trash(base.fd, "w", "t", identity)


def test_a_trash_that_is_a_link(base: Base) -> None:
    identity = base.make()
    (base.path / TRASH).symlink_to(base.outside / "elsewhere")
    with nothing_changes(base):
        move_to_trash(base.fd, "w", "t", identity)
    with nothing_changes(base):
        purge(base.fd, "w", identity)


@is_root
def test_a_base_that_cannot_be_written(base: Base) -> None:
    identity = base.make()
    os.fchmod(base.fd, 0o500)
    with as_nobody(base.fd), pytest.raises(PathRefused):
        move_to_trash(base.fd, "w", "t", identity)
    assert (base.path / "w" / "inner" / "file").exists()


# --- away ----------------------------------------------------------------------------------------


def test_another_ones_trash_is_left_alone(base: Base) -> None:
    identity = base.trash()
    other = Identity(identity.device, identity.inode + 1)
    with nothing_changes(base):
        purge(base.fd, "t", other)


def test_links_inside_are_removed_and_not_followed(base: Base) -> None:
    identity = base.make()
    for number, target in enumerate((base.outside / "elsewhere", base.path, Path("/"), Path("dangling"))):
        (base.path / "w" / f"link{number}").symlink_to(target)
    os.mkfifo(base.path / "w" / "pipe")
    os.link(base.outside / "elsewhere" / "w" / "precious", base.path / "w" / "hard")
    assert move_to_trash(base.fd, "w", "t", identity)
    assert purge(base.fd, "t", identity)
    assert (base.outside / "elsewhere" / "w" / "precious").read_text() == "precious"


def test_directories_that_are_not_to_be_listed(base: Base) -> None:
    """A module cache makes them read-only, a test may have made them worse; without root's rights."""
    identity = base.trash()
    folder = base.path / TRASH / "t"
    with contextlib.ExitStack() as stack:
        if os.geteuid() == 0:
            for path in [base.path / TRASH, folder, *folder.rglob("*")]:
                os.chown(path, NOBODY, NOBODY)
            stack.enter_context(as_nobody(base.fd))
            os.chmod(f"/proc/self/fd/{base.fd}/{TRASH}/t/inner", 0o000)
            os.chmod(f"/proc/self/fd/{base.fd}/{TRASH}/t", 0o500)
        else:
            (folder / "inner").chmod(0o000)
            folder.chmod(0o500)
        assert purge(base.fd, "t", identity)
    assert not folder.exists()


@is_root
@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
def test_what_is_mounted_inside_is_left_alone(base: Base, kind: str) -> None:
    """A bind mount has the device of what it shows: only its mount tells."""
    identity = base.trash()
    at = base.path / TRASH / "t" / "inner"
    shown = base.outside / "elsewhere" / "w"
    options = ["--bind", str(shown)] if kind == "bind" else ["-t", "tmpfs", "none"]
    subprocess.run(["mount", *options, at], check=True)
    try:
        if kind == "tmpfs":
            (at / "precious").write_text("precious")
        assert (at / "precious").read_text() == "precious"
        with pytest.raises(PathRefused):
            purge(base.fd, "t", identity)
        assert (at / "precious").read_text() == "precious"
    finally:
        subprocess.run(["umount", at], check=True)
    assert purge(base.fd, "t", identity)
    assert (shown / "precious").read_text() == "precious"


def test_another_mount_is_refused_by_its_id(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """As above, where nobody may mount."""
    identity = base.trash()
    inner = (base.path / TRASH / "t" / "inner").stat().st_ino
    real = removal._mount
    monkeypatch.setattr(removal, "_mount", lambda fd: b"other" if os.fstat(fd).st_ino == inner else real(fd))
    with nothing_changes(base):
        purge(base.fd, "t", identity)


def test_something_swapped_in_while_it_is_removed(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = base.trash()
    folder = base.path / TRASH / "t"
    real = removal._make_listable

    def swap(fd: int) -> None:
        real(fd)
        if (folder / "inner").is_dir() and not (folder / "inner").is_symlink() and fd_leads_to(fd, folder):
            (folder / "inner").rename(folder / "moved")
            (folder / "inner").symlink_to(base.outside / "elsewhere")

    monkeypatch.setattr(removal, "_make_listable", swap)
    purge(base.fd, "t", identity)
    assert (base.outside / "elsewhere" / "w" / "precious").read_text() == "precious"


def fd_leads_to(fd: int, path: Path) -> bool:
    return os.path.samestat(os.fstat(fd), os.stat(path))


def test_what_vanishes_meanwhile_is_no_end(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something inside is gone before its turn: not "gone already", or the rest would be forgotten."""
    identity = base.trash()
    folder = base.path / TRASH / "t"
    real = os.stat

    def vanish(path: object, *args: object, **kwargs: object) -> os.stat_result:
        if path == "inner":
            (folder / "inner").rename(base.path / "taken")
        return real(path, *args, **kwargs)  # type: ignore[arg-type,call-overload]

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", vanish)
        with pytest.raises(PathRefused):
            purge(base.fd, "t", identity)
    assert folder.exists()
    assert purge(base.fd, "t", identity)
    assert not folder.exists()


def test_a_tree_deeper_than_any_stack_or_number_of_descriptors(base: Base) -> None:
    identity = base.make()
    fd = os.open(base.path / "w", os.O_RDONLY)
    for _ in range(5000):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    assert move_to_trash(base.fd, "w", "t", identity)
    assert purge(base.fd, "t", identity)
    assert os.listdir(base.path / TRASH) == []


def test_a_folder_that_moves_while_it_is_removed(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way up leads elsewhere: what is there is not ours to empty."""
    identity = base.trash()
    inner = base.path / TRASH / "t" / "inner"
    (inner / "deep").mkdir()
    real = os.rmdir

    def move(name: str, *, dir_fd: int) -> None:
        if name == "deep":
            inner.rename(base.outside / "elsewhere" / "moved")
        real(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", move)
    with pytest.raises(PathRefused):
        purge(base.fd, "t", identity)
    assert (base.outside / "elsewhere" / "w" / "precious").read_text() == "precious"


def test_a_size_is_told_or_unknown(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    base.make()
    assert measure(str(base.path / "w")) == len("work")
    monkeypatch.setattr(removal, "MOST_MEASURED", 1)
    assert measure(str(base.path / "w")) is None
