"""Git repositories for tests: small, real, made by git itself in a scrubbed environment."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Final

from hostsvc.git.command import environment

_SETTINGS: Final = (
    "user.name=Test",
    "user.email=test@example.invalid",
    "init.defaultBranch=main",
    "commit.gpgSign=false",
    "protocol.file.allow=always",
    "advice.detachedHead=false",
)


def git(folder: Path, *arguments: str, check: bool = True) -> str:
    """Run git in a folder and return what it says."""
    settings = [word for setting in _SETTINGS for word in ("-c", setting)]
    ended = subprocess.run(
        ["git", *settings, *arguments],
        cwd=folder,
        env={**environment(), "GIT_EDITOR": "true"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or ended.returncode == 0, f"git {arguments}: {ended.stdout}{ended.stderr}"
    return ended.stdout.strip()


def commit(folder: Path, name: str = "file", content: str = "one\n", message: str = "change") -> str:
    """Write a file, commit it, and return the commit."""
    (folder / name).write_text(content)
    git(folder, "add", name)
    git(folder, "commit", "-q", "-m", message)
    return git(folder, "rev-parse", "HEAD")


class Repository:
    """A bare remote, a clone of it, and linked worktrees of the clone."""

    def __init__(self, root: Path) -> None:
        self.remote = root / "remote.git"
        self.main = root / "main"
        root.mkdir(parents=True, exist_ok=True)
        git(root, "init", "-q", "--bare", str(self.remote))
        git(root, "clone", "-q", str(self.remote), str(self.main))
        git(self.main, "checkout", "-q", "-b", "main")
        commit(self.main)
        git(self.main, "push", "-q", "-u", "origin", "main")

    def worktree(self, path: Path, branch: str = "work") -> Path:
        """Return a clean, pushed worktree on a branch of its own."""
        git(self.main, "worktree", "add", "-q", "-b", branch, str(path))
        git(path, "push", "-q", "-u", "origin", branch)
        return path


def fingerprint(*folders: Path) -> str:
    """Return a hash over every name, mode, link and byte below some folders, and every file's mtime."""
    digest = hashlib.sha256()
    for folder in folders:
        for parent, directories, files in os.walk(folder):
            directories.sort()
            for name in sorted([*directories, *files]):
                path = Path(parent) / name
                found = path.lstat()
                digest.update(
                    f"{path}\0{found.st_mode}\0{found.st_mtime_ns}\0".encode(errors="surrogateescape")
                )
                if path.is_symlink():
                    digest.update(os.readlink(path).encode(errors="surrogateescape"))
                elif path.is_file():
                    digest.update(path.read_bytes())
    return digest.hexdigest()
