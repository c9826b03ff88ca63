"""The environment of a program that asked for nothing special: a login's, from the user database.

Never that of whoever happened to start the daemon: what runs today must not depend on who was first.
"""

from __future__ import annotations

import os
import pwd

USER_PATH = "/usr/local/bin:/usr/bin:/bin"
ROOT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


_seen: dict[int, pwd.struct_passwd] = {}


def _user() -> pwd.struct_passwd:
    """Look our user up. Containers run users that no database knows, who get what a shell would assume."""
    uid = os.getuid()
    try:
        _seen[uid] = pwd.getpwuid(uid)
    except KeyError:
        pass  # also when there is no descriptor left to read the database with
    return _seen.get(uid) or pwd.struct_passwd((str(uid), "x", uid, os.getgid(), "", "/", "/bin/sh"))


def program_env(given: dict[str, str]) -> dict[str, str]:
    """Lay what a request gives over a minimal login environment."""
    user = _user()
    login = {
        "HOME": user.pw_dir,
        "USER": user.pw_name,
        "LOGNAME": user.pw_name,
        "SHELL": user.pw_shell or "/bin/sh",
        "PATH": USER_PATH if os.getuid() else ROOT_PATH,
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
    }
    return login | given


def program_cwd(given: bytes | None) -> str:
    """Return the directory to start in: the one asked for, else the user's home."""
    return os.fsdecode(given) if given else _user().pw_dir
