"""Keeping what only a worktree holds while it is out of its repository, from git's own clean-up.

Owns the refs below `refs/hostsvc/trash/`. One is either the worktree's commit, or a commit of ours: its
parents are all the commits that the worktree was at work with, its tree has the content of what was staged.

Source: git-gc(1), git-mktree(1), git-commit-tree(1)
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from hostsvc.git.command import Git, GitUnknown, text
from hostsvc.git.worktree import Taken, read_commit

KEEP_REF: Final = "refs/hostsvc/trash/"
AT_WORK_WITH: Final = ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "REBASE_HEAD", "ORIG_HEAD")
OWN_REFS: Final = ("refs/bisect", "refs/worktree", "refs/rewritten")
"""Those that each worktree has for itself."""
_US: Final = ("user.name=hostsvc", "user.email=hostsvc@localhost")


async def keep(git: Git, taken: Taken, folder: Path, id_: str) -> None:
    """Let a ref hold what a worktree alone may have. It is still registered, and is left as it is.

    Raises:
        GitUnknown: that cannot be done.
    """
    commits = await _find_commits(git, folder, taken.head)
    staged = await _find_staged(git, folder, taken.head)
    kept = taken.head
    if staged or commits not in ([], [taken.head]):
        kept = await _commit(git, folder, staged, commits)
    if kept is not None:
        await git.run(taken.common_dir, "update-ref", KEEP_REF + id_, kept)


async def let_go(git: Git, common_dir: str, id_: str) -> None:
    """Drop what is kept: the worktree is back, or purged."""
    await git.run(common_dir, "update-ref", "-d", KEEP_REF + id_)


async def _find_commits(git: Git, folder: Path, head: str | None) -> list[str]:
    """Return the commits from which all can be reached that it is at, or at work with; its head first."""
    named = [await read_commit(git, folder, name) for name in AT_WORK_WITH]
    own = await git.run(str(folder), "for-each-ref", "--format=%(objecttype) %(objectname)", *OWN_REFS)
    refs = [line.removeprefix("commit ") for line in text(own).splitlines() if line.startswith("commit ")]
    found = {commit for commit in (head, *named, *refs) if commit is not None}
    if not found:
        return []
    tips = text(await git.run(str(folder), "merge-base", "--independent", *sorted(found))).splitlines()
    return sorted(tips, key=lambda tip: (tip != head, tip))


async def _find_staged(git: Git, folder: Path, head: str | None) -> list[str]:
    """Return the content of every file that is staged, as blobs; those of conflicts belong to the commits."""
    if head is None:
        shown = "--format=%(objectmode) %(objectname)"
        listed = text(await git.run(str(folder), "ls-files", "--cached", shown))
        entries = [line.split(" ") for line in listed.splitlines()]
    else:
        raw = await git.run(str(folder), "diff-index", "--cached", "--raw", "-z", "--no-renames", head)
        fields = [line.decode().split(" ") for line in raw.split(b"\0") if line.startswith(b":")]
        entries = [[new_mode, new] for _, new_mode, _, new, _ in fields]
    blobs = {blob for mode, blob in entries if mode[:3] in ("100", "120") and blob.strip("0")}
    return [blob for blob in sorted(blobs) if await git.test(str(folder), "cat-file", "-e", blob)]


async def _commit(git: Git, folder: Path, blobs: list[str], parents: list[str]) -> str:
    entries = "".join(f"100644 blob {blob}\t{blob}\n" for blob in blobs)
    tree = text(await git.run(str(folder), "mktree", stdin=entries.encode()))
    words = [word for parent in parents for word in ("-p", parent)]
    message = "What a worktree in the trash has staged, and was at work with"
    made = await git.run(str(folder), "commit-tree", tree, *words, "-m", message, overrides=_US)
    if not (commit := text(made)):
        raise GitUnknown("git made no commit")
    return commit
