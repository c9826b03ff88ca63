"""What the host service tells of without being asked: the types of its events, for whoever subscribes."""

from __future__ import annotations

from typing import Final

EVENT_TYPES: Final[dict[str, str]] = {
    "workspace.created": "its folder is there",
    "workspace.updated": "its name, labels or protection have changed",
    "workspace.deleting": "its deletion is sealed: it takes nothing new",
    "workspace.deleted": "it is gone; `left` sessions are still to be proven dead",
    "workspace.deletion_undone": "its deletion was undone before the point of no return",
    "workspace.restored": "it is back from the trash, in its next generation",
    "trash.purged": "`entry` was removed for good, as somebody asked",
    "workspace.unfollowed": "what its worktree is at is not known any more: `reason`",
    "saga.step": "a deletion has begun a step",
    "saga.stuck": "a deletion has failed so often that a person should look",
    "session.created": "its program runs",
    "session.dispose_requested": "its end was asked for",
    "session.disposed": "it was to end, and its death is proven",
    "session.exited": "it ended by itself, with proof",
    "session.lost": "it is gone, and how it ended was not recorded",
    "session.failed": "it never ran",
    "session.stuck": "its kill has failed so often that a person should look",
    "session.restarted": "it had ended by itself, and the next generation of it runs",
    "session.restart_given_up": "it does not last: it was started again as often as is allowed",
    "session.orphan_killed": "a living one without a row that wants it was ended",
    "session.adopted": "it was taken over from a lost index",
    "worktree.broken": "nobody owns it, and its link leads nowhere; told once, moved aside after long",
    "triples.swept": "what became of each entry of the base directory, and how many there are of each",
    "run.started": "it takes sessions",
    "run.ending": "it takes nothing new, and what it has is being ended",
    "run.ended": "it is over; or `partial`: something of it is left, and is tried again",
    "reaper.progress": "a pass is under way: `done` of `total`",
    "reaper.pass": "a pass found or did something new",
    "ptyd.restarted": "it did not answer, and its process was replaced; its sessions live on",
    "ptyd.circuit_opened": "restarts do not help: there are no more of them until a person says so",
    "ptyd.circuit_closed": "a person has said so",
    "service.ready": "requests are served",
    "service.stopping": "every connection will be closed",
}
