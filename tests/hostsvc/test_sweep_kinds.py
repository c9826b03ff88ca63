"""The kind `triples` on real files, with the real engine and a real index: A5 to A12, B19 to B21, B23."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hostsvc.reaper import base
from hostsvc.reaper.base import newest_change, scan
from hostsvc.reaper.gate import Caps
from hostsvc.sweep import UNRECOGNISED
from ptyd.protocol.errors import PtydError
from tests.hostsvc.litter import DAY, GONE, HOUR, SECRET, Litter, littered, outcomes, process_inside
from tests.support.repos import fingerprint


@pytest.fixture
async def litter(tmp_path: Path) -> AsyncIterator[Litter]:
    with littered(tmp_path) as found:
        yield found


def told(litter: Litter) -> dict[str, int]:
    event = litter.told()[-1]
    return {name: event[name] for name in ("swept", "retained", "failed", "unrecognised")}


async def test_A5_exactly_the_aged_entries_go_and_one_event_counts_all(litter: Litter) -> None:
    litter.workspace("done", is_deleted=True)
    litter.workspace("live")
    for name, owner in (("old1", GONE), ("old2", "done"), ("live", "live")):
        litter.triple(name, owner)
    (litter.base / "notes.txt").write_text("somebody's")
    litter.later(2 * HOUR)
    for name in ("new1", "new2"):
        litter.triple(name)
        for path in litter.base.glob(name + "*"):
            litter.age(path, litter.now_ms())
    before = litter.names()
    recorded = await litter.sweep_twice()
    aged = {"old1", "old1-artifacts", "old1.cred.sh", "old2", "old2-artifacts", "old2.cred.sh"}
    assert litter.names() == before - aged
    assert {entry["path"] for entry in litter.trash()} == {
        str(litter.path(name)) for name in aged if not name.endswith(".cred.sh")
    }
    assert outcomes(recorded) == {
        "old1": "trash done",
        "old1-artifacts": "trash done",
        "old1.cred.sh": "unlink done",
    }
    first, second = litter.told()
    assert {**first, **second} | {"swept": 3, "retained": 9, "failed": 0, "unrecognised": 1} == {
        **first,
        **second,
    }
    assert first["swept"] + first["retained"] + first["failed"] + first["unrecognised"] == len(before)
    assert second["duration_ms"] >= 0
    assert sorted(litter.audited()) == ["trash", "trash", "unlink"]


async def test_A5_nothing_new_is_not_told_again(litter: Litter) -> None:
    litter.folder("young")
    await litter.sweep()
    assert litter.told() == [], "all is as it should be"
    (litter.base / "strange").write_text("x")
    for _ in range(3):
        await litter.sweep()
    assert [event["unrecognised"] for event in litter.told()] == [1]


async def test_A5_no_secret_is_told_anywhere(litter: Litter) -> None:
    litter.workspace("done", is_deleted=True)
    litter.triple("w", "done")
    litter.later(2 * HOUR)
    recorded = await litter.sweep()
    assert outcomes(recorded)["w.cred.sh"] == "unlink done"
    trash = litter.base / ".trash"
    everything = [path.read_text() for path in trash.rglob("*") if path.is_file()]
    everything += [str(recorded), str(list(litter.events.after(0, 100))), str(litter.audited("done"))]
    assert not any(SECRET in text for text in everything)


async def test_A6_a_stale_credential_goes_alone(litter: Litter) -> None:
    folder, credential = litter.folder("w"), litter.credential("w")
    litter.later(2 * HOUR)
    litter.age(folder, litter.now_ms())
    recorded = await litter.sweep_twice()
    assert outcomes(recorded) == {"w.cred.sh": "unlink done"}
    assert folder.exists()
    assert not credential.exists()
    assert litter.trash() == []


async def test_A6_a_change_deep_inside_keeps_the_folder(litter: Litter) -> None:
    """The folder's own time does not move when something in it does."""
    folder = litter.folder("w")
    deep = folder / "a" / "b"
    deep.mkdir(parents=True)
    litter.later(2 * HOUR)
    (deep / "log").write_text("x")
    litter.age(deep / "log", litter.now_ms())
    assert outcomes(await litter.sweep_twice()) == {}
    litter.age(deep / "log", litter.now_ms() - 2 * HOUR)
    assert outcomes(await litter.sweep_twice()) == {"w": "trash done"}


async def test_A7_what_a_workspace_has_is_kept_however_old(litter: Litter) -> None:
    litter.workspace("live")
    litter.triple("live", "live")
    litter.workspace("renewed", litter.path("other"))
    litter.triple("other", "earlier", created_at_ms=litter.now_ms() - 9 * DAY)
    litter.later(9 * DAY)
    before = fingerprint(litter.base)
    recorded = await litter.sweep_twice()
    assert recorded["acts"] == []
    assert litter.kept(recorded, "triples") == {"its workspace is there": 6}
    assert fingerprint(litter.base) == before


@pytest.mark.parametrize("state", ["provisioning", "deleting"])
async def test_A7_what_is_being_made_or_deleted_is_kept(litter: Litter, state: str) -> None:
    made = litter.workspace("w")
    litter.triple("w", "w")
    with litter.writing() as db:
        if state == "deleting":
            db.execute("UPDATE workspaces SET state = 'deleting'")
        else:
            db.execute("DROP TRIGGER workspaces_moves")
            db.execute("UPDATE workspaces SET state = 'provisioning'")
    litter.later(9 * DAY)
    assert (await litter.sweep_twice())["acts"] == []
    assert made.id == "w"


async def test_A7_a_deletion_under_way_keeps_it(litter: Litter) -> None:
    litter.folder("w", "w")
    with litter.writing() as db:
        db.execute(
            "INSERT INTO sagas (id, workspace_id, generation, state, created_at_ms)"
            " VALUES ('s', 'w', 1, 'open', 1)"
        )
    litter.later(9 * DAY)
    assert (await litter.sweep_twice())["acts"] == []


async def test_A7_a_workspace_inside_keeps_what_is_around_it(litter: Litter) -> None:
    folder = litter.folder("outer")
    (folder / "inner").mkdir()
    litter.workspace("inner", folder / "inner", is_ours=False)
    litter.later(9 * DAY)
    assert (await litter.sweep_twice())["acts"] == []


async def test_A8_a_base_that_is_missing_is_empty(litter: Litter) -> None:
    os.rename(litter.base, litter.root / "away")
    recorded = await litter.sweep()
    assert (recorded["state"], recorded["counts"]["seen"]) == ("ok", 0)


async def test_A8_and_B23_a_base_that_cannot_be_read_is_an_error(litter: Litter) -> None:
    litter.folder("w")
    litter.later(2 * HOUR)
    await litter.sweep()
    os.rename(litter.base, litter.root / "away")
    (litter.root / "work").symlink_to(litter.root / "away")
    recorded = await litter.sweep()
    assert recorded["state"] == "error"
    assert set(recorded["errors"]) == {"worktrees", "triples"}
    assert recorded["acts"] == []
    os.unlink(litter.root / "work")
    os.rename(litter.root / "away", litter.base)
    litter.later(61_000)
    assert outcomes(await litter.sweep()) == {}, "what was seen before the error counts no more"
    litter.later(61_000)
    assert outcomes(await litter.sweep()) == {"w": "trash done"}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become somebody else")
def test_A8_a_base_of_somebody_else_is_an_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    closed = tmp_path / "closed"
    closed.mkdir(0o700)
    os.seteuid(65534)
    try:
        with pytest.raises(PtydError, match="cannot be read"):
            scan(closed)
    finally:
        os.seteuid(0)


async def test_A9_exactly_at_the_age_it_is_kept(litter: Litter) -> None:
    litter.workspace("done", is_deleted=True)
    folder = litter.folder("w", "done")
    now_ms = litter.stop_the_clock()
    litter.age(folder, now_ms - HOUR)
    assert outcomes(await litter.sweep()) == {}
    litter.age(folder, now_ms - HOUR - 1)
    assert outcomes(await litter.sweep()) == {"w": "trash done"}


async def test_A10_a_time_in_the_future_is_kept_and_counted(litter: Litter) -> None:
    litter.workspace("done", is_deleted=True)
    folder = litter.folder("w", "done")
    litter.age(folder, litter.now_ms() + DAY)
    recorded = await litter.sweep_twice()
    assert recorded["acts"] == []
    assert litter.kept(recorded, "triples") == {"its last change lies in the future": 1}


STRANGE = ["plain", "w.cred.sh", "w-artifacts", ".hidden", "x.draft"]


async def test_A12_a_strangers_files_stay_for_ever(litter: Litter) -> None:
    for name in STRANGE:
        litter.path(name).write_text("x")
    litter.path("folder").mkdir()
    litter.path("link").symlink_to(litter.path("folder"))
    os.mkfifo(litter.path("pipe"))
    litter.path(os.fsdecode(b"\xff\xfe")).write_text("x")
    litter.later(400 * DAY)
    before = litter.names()
    for _ in range(3):
        recorded = await litter.sweep_twice()
        assert recorded["acts"] == []
    assert litter.kept(recorded, "triples") == {UNRECOGNISED: len(before)}
    assert told(litter) == {"swept": 0, "retained": 0, "failed": 0, "unrecognised": len(before)}
    assert litter.names() == before


async def test_A12_what_came_in_the_place_of_ours_is_a_strangers(litter: Litter) -> None:
    """Another folder, another file, a link: the same name is no proof that we made it."""
    litter.workspace("done", is_deleted=True)
    litter.triple("w", "done")
    for path in (litter.path("w"), litter.path("w-artifacts"), litter.path("w.cred.sh")):
        os.rename(path, litter.root / path.name)
    litter.path("w").mkdir()
    litter.path("w-artifacts").symlink_to(litter.root / "w-artifacts")
    litter.path("w.cred.sh").write_text("mine")
    litter.later(9 * DAY)
    recorded = await litter.sweep_twice()
    assert recorded["acts"] == []
    assert litter.kept(recorded, "triples") == {UNRECOGNISED: 3}


async def test_A12_a_stranger_that_is_given_the_inode_of_ours(litter: Litter) -> None:
    """As a file system does at once: here the link of another name keeps it from being anybody else's."""
    litter.workspace("w", is_deleted=True)
    credential = litter.credential("w", "w")
    os.link(credential, litter.root / "inode")
    folder = litter.folder("w", "w")
    number = folder.stat().st_ino
    litter.later(2 * HOUR)
    assert outcomes(await litter.sweep()) == {"w": "trash done", "w.cred.sh": "unlink done"}
    (entry,) = litter.trash()
    assert await litter.can.purge(entry) is None
    (litter.root / "inode").rename(credential)
    again = litter.path("w")
    again.mkdir()
    (again / "of-somebody-else").touch()
    with litter.writing() as db:  # no file system promises to give it out again in time for a test
        db.execute("UPDATE paths SET inode = ? WHERE inode = ?", [again.stat().st_ino, number])
    litter.later(2 * HOUR)
    assert (await litter.sweep_twice())["acts"] == []
    assert (again / "of-somebody-else").exists()
    assert credential.exists()
    assert told(litter)["unrecognised"] == 2


async def test_what_is_ours_stays_ours_when_its_device_has_another_number(litter: Litter) -> None:
    litter.workspace("done", is_deleted=True)
    litter.triple("done", "done")
    alias = litter.folder("alias", "done")
    living = litter.workspace("living", litter.root / "elsewhere", is_ours=False)
    with litter.writing() as db:
        db.execute("UPDATE paths SET device = device + 1")
        identity = [alias.stat().st_dev + 1, alias.stat().st_ino, living.id]
        db.execute("UPDATE workspaces SET device = ?, inode = ? WHERE id = ?", identity)
    litter.later(2 * HOUR)
    assert outcomes(await litter.sweep()) == {
        "done": "trash done", "done-artifacts": "trash done", "done.cred.sh": "unlink done",
    }  # fmt: skip
    assert litter.names() == {"alias"}, "a workspace's folder, under another name"


async def test_A12_what_was_there_before_us_is_a_strangers(litter: Litter) -> None:
    """A workspace that was refused because of it has written down the path, and never what is there."""
    litter.workspace("done", is_deleted=True)
    litter.folder("w", "done", device=None, inode=None)
    litter.credential("w", "done", device=None, inode=None)
    litter.later(9 * DAY)
    assert (await litter.sweep_twice())["acts"] == []


async def test_B19_a_process_inside_keeps_it(litter: Litter) -> None:
    litter.workspace("done", is_deleted=True)
    folder = litter.folder("w", "done")
    (folder / "deep").mkdir()
    litter.later(2 * HOUR)
    with process_inside(folder / "deep"):
        recorded = await litter.sweep()
    assert litter.kept(recorded, "triples") == {"a process is inside": 1}
    assert outcomes(await litter.sweep()) == {"w": "trash done"}


async def test_B19_also_when_the_base_has_another_name(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "alias").symlink_to(tmp_path / "real")
    with littered(tmp_path, base=tmp_path / "alias" / "work") as litter:
        litter.workspace("done", is_deleted=True)
        folder = litter.folder("w", "done")
        litter.later(2 * HOUR)
        with process_inside(folder):
            assert (await litter.sweep())["acts"] == []


async def test_B20_an_owner_that_appears_before_the_act_keeps_it(
    litter: Litter, monkeypatch: pytest.MonkeyPatch
) -> None:
    litter.workspace("done", is_deleted=True)
    litter.folder("w", "done")
    litter.later(2 * HOUR)
    look_at = litter.look.look_at

    async def late(name: str) -> object:
        litter.workspace("late", litter.path(name))
        return await look_at(name)

    monkeypatch.setattr(litter.look, "look_at", late)
    recorded = await litter.sweep()
    assert recorded["acts"][0]["outcome"] == "skipped"
    assert recorded["acts"][0]["error"] == "its workspace is there"
    assert litter.path("w").exists()


@pytest.mark.parametrize("what", ["replaced", "touched", "gone"])
@pytest.mark.parametrize("name", ["w", "w.cred.sh"])
async def test_B21_what_changes_before_the_act_is_kept(
    litter: Litter, monkeypatch: pytest.MonkeyPatch, what: str, name: str
) -> None:
    litter.workspace("done", is_deleted=True)
    path = litter.folder("w", "done") if name == "w" else litter.credential("w", "done")
    litter.later(2 * HOUR)
    look_at = litter.look.look_at

    async def late(name: str) -> object:
        if what == "touched":
            litter.age(path, litter.now_ms())
        else:
            os.rename(path, litter.root / "away")
        if what == "replaced":
            path.mkdir() if name == "w" else path.write_text("another")
        return await look_at(name)

    monkeypatch.setattr(litter.look, "look_at", late)
    recorded = await litter.sweep()
    assert [act["outcome"] for act in recorded["acts"]] == ["skipped"]
    assert path.exists() is (what != "gone")
    assert litter.trash() == []


async def test_what_is_inferred_passes_the_gate_and_what_a_row_says_is_exempt(tmp_path: Path) -> None:
    with littered(tmp_path, caps=Caps(count=4, share=1.0)) as litter:
        litter.workspace("done", is_deleted=True)
        for number in range(5):
            litter.folder(f"lost{number}")
            litter.folder(f"done{number}", "done")
        litter.later(2 * HOUR)
        await litter.sweep()
        assert litter.names() == {f"lost{number}" for number in range(5)}
        litter.later(61_000)
        recorded = await litter.sweep()
        assert recorded["state"] == "refused"
        assert len(litter.names()) == 5
        assert told(litter)["retained"] == 5
        await litter.sweep(accepted=recorded["plan_hash"])
        assert litter.names() == set()


async def test_a_rehearsal_changes_and_tells_nothing(litter: Litter) -> None:
    litter.workspace("done", is_deleted=True)
    litter.triple("w", "done")
    (litter.base / "strange").write_text("x")
    litter.later(2 * HOUR)
    before = fingerprint(litter.base)
    recorded = await litter.sweep(is_dry=True)
    assert set(outcomes(recorded).values()) == {"trash planned", "unlink planned"}
    assert fingerprint(litter.base) == before
    assert litter.told() == []


async def test_what_cannot_be_moved_has_failed_and_stays(litter: Litter) -> None:
    litter.workspace("done", is_deleted=True)
    folder = litter.folder("w", "done")
    litter.later(2 * HOUR)
    (litter.base / ".trash").write_text("no directory")
    recorded = await litter.sweep()
    assert outcomes(recorded) == {"w": "trash failed"}
    assert told(litter) == {"swept": 0, "retained": 0, "failed": 1, "unrecognised": 0}
    assert folder.exists()


async def test_M_a_second_pass_acts_on_nothing(litter: Litter) -> None:
    litter.workspace("done", is_deleted=True)
    litter.triple("w", "done")
    litter.later(2 * HOUR)
    assert len((await litter.sweep())["acts"]) == 3
    assert (await litter.sweep())["acts"] == []


def test_a_folder_that_is_too_large_to_look_through_has_no_age(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "MOST_LOOKED_INTO", 3)
    folder = tmp_path / "w"
    folder.mkdir()
    for number in range(4):
        (folder / str(number)).write_text("")
    (entry,) = scan(tmp_path)
    assert "more than 3" in str(newest_change(entry, entry.changed_at_ms + HOUR))
