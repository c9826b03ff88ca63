"""Errors: one closed table from code to wire number, exit status and meaning.

`PtydError` is the one exception that crosses this protocol. The daemon raises it and its server
sends it; a client gets it from the wire and raises it again. Standard library only.

Source: protocol.md, "Errors". Exit statuses above 63 are those of sysexits(3).
"""

import enum
from typing import Any, Final, NamedTuple, Self


class Code(enum.StrEnum):
    """What went wrong; the value is what the wire says."""

    BAD_REQUEST = "bad_request"
    UNKNOWN_METHOD = "unknown_method"
    INVALID_PARAMS = "invalid_params"
    NOT_FOUND = "not_found"
    EXISTS = "exists"
    NAME_TAKEN = "name_taken"
    FENCED = "fenced"
    PROGRAM_NOT_FOUND = "program_not_found"
    PROGRAM_NOT_EXECUTABLE = "program_not_executable"
    CWD_UNAVAILABLE = "cwd_unavailable"
    SPAWN_FAILED = "spawn_failed"
    INPUT_FULL = "input_full"
    READ_ONLY = "read_only"
    SELF_ATTACH = "self_attach"
    NO_SHM = "no_shm"
    ENDED = "ended"
    KILL_UNCONFIRMED = "kill_unconfirmed"
    UNSUPERVISED = "unsupervised"
    WRONG_INSTANCE = "wrong_instance"
    BUSY = "busy"
    TOO_MANY_SESSIONS = "too_many_sessions"
    TOO_MANY_ATTACHMENTS = "too_many_attachments"
    TOO_MANY_REQUESTS = "too_many_requests"
    TOO_MANY_CLIENTS = "too_many_clients"
    TIMEOUT = "timeout"
    NO_SPACE = "no_space"
    STILL_RUNNING = "still_running"
    STOPPING = "stopping"
    INTERNAL = "internal"
    NO_PTYD = "ptyd_unreachable"
    DESTROYED = "destroyed"
    BEING_DELETED = "being_deleted"
    PROTECTED = "protected"
    AT_RISK = "at_risk"
    PATH_REFUSED = "path_refused"
    PLAN_CHANGED = "plan_changed"
    INDEX_FAILED = "index_failed"
    UNREACHABLE = "unreachable"
    MAYBE_APPLIED = "maybe_applied"
    NESTED = "nested"
    PROTOCOL_VIOLATION = "protocol_violation"


# What stands before the text of an error. MessagePack-RPC leaves it open; Neovim, the client that most
# people have, shows the text only after one of its own two: an exception, or a request that was wrong.
EXCEPTION: Final = 0
VALIDATION: Final = 1
NEVER_SENT: Final = -1
"""In place of a number: raised by client libraries, and never crosses the wire."""


class Row(NamedTuple):
    """A code's number on the wire, the command line's exit status for it, and its meaning."""

    number: int
    exit_status: int
    meaning: str


# An exit status may be read by scripts: rows are added, never changed.
TABLE: Final[dict[Code, Row]] = {
    Code.BAD_REQUEST: Row(VALIDATION, 2, "the message is no acceptable request at this point"),
    Code.UNKNOWN_METHOD: Row(VALIDATION, 2, "this daemon has no such method"),
    Code.INVALID_PARAMS: Row(VALIDATION, 2, "a field is missing, of the wrong type or out of its bounds"),
    Code.NOT_FOUND: Row(EXCEPTION, 3, "no session or attachment has that id or name"),
    Code.EXISTS: Row(EXCEPTION, 4, "a living session has that id, or a record of that generation"),
    Code.NAME_TAKEN: Row(EXCEPTION, 4, "a living session has that name"),
    Code.FENCED: Row(EXCEPTION, 4, "that id was killed at this generation or a later one"),
    Code.PROGRAM_NOT_FOUND: Row(EXCEPTION, 1, "the program to run does not exist"),
    Code.PROGRAM_NOT_EXECUTABLE: Row(EXCEPTION, 1, "the program to run cannot be executed"),
    Code.CWD_UNAVAILABLE: Row(EXCEPTION, 1, "the working directory is missing or cannot be entered"),
    Code.SPAWN_FAILED: Row(EXCEPTION, 1, "the session could not be started for another reason"),
    Code.INPUT_FULL: Row(EXCEPTION, 75, "the session's input queue has no room; nothing was accepted"),
    Code.READ_ONLY: Row(EXCEPTION, 4, "this connection is attached to the session for reading only"),
    Code.SELF_ATTACH: Row(EXCEPTION, 4, "the client runs inside the session that it asks to attach to"),
    Code.NO_SHM: Row(EXCEPTION, 1, "the session's ring cannot be had directly; its output can be streamed"),
    Code.ENDED: Row(EXCEPTION, 4, "the session has ended"),
    Code.KILL_UNCONFIRMED: Row(EXCEPTION, 4, "not every process of the session is proven dead"),
    Code.UNSUPERVISED: Row(EXCEPTION, 4, "the session's shim is gone, so this cannot be done any more"),
    Code.WRONG_INSTANCE: Row(EXCEPTION, 4, "this is not the instance that the request expects"),
    Code.BUSY: Row(EXCEPTION, 75, "the daemon cannot do this just now; ask again"),
    Code.TOO_MANY_SESSIONS: Row(EXCEPTION, 75, "the daemon's limit of sessions is reached"),
    Code.TOO_MANY_ATTACHMENTS: Row(EXCEPTION, 75, "the connection's limit of attachments is reached"),
    Code.TOO_MANY_REQUESTS: Row(EXCEPTION, 75, "the connection's limit of unanswered requests is reached"),
    Code.TOO_MANY_CLIENTS: Row(EXCEPTION, 75, "the daemon's limit of connections is reached"),
    Code.TIMEOUT: Row(EXCEPTION, 1, "the time allowed was over first"),
    Code.NO_SPACE: Row(EXCEPTION, 1, "no memory, disk space or descriptors are left for this"),
    Code.STILL_RUNNING: Row(EXCEPTION, 4, "the session has not ended"),
    Code.STOPPING: Row(EXCEPTION, 69, "the daemon is stopping"),
    Code.INTERNAL: Row(EXCEPTION, 1, "a fault of the daemon's; its log says more"),
    Code.NO_PTYD: Row(EXCEPTION, 69, "ptyd cannot be reached now; what was asked of it stays due"),
    Code.DESTROYED: Row(EXCEPTION, 4, "it was destroyed, and nothing late revives it"),
    Code.BEING_DELETED: Row(EXCEPTION, 4, "the workspace is being deleted and takes nothing new"),
    Code.PROTECTED: Row(EXCEPTION, 4, "the workspace is protected against deletion"),
    Code.AT_RISK: Row(EXCEPTION, 4, "work would be lost that is nowhere else"),
    Code.PATH_REFUSED: Row(EXCEPTION, 4, "the path cannot be a workspace's"),
    Code.PLAN_CHANGED: Row(EXCEPTION, 4, "what the pass would do now is not what was accepted"),
    Code.INDEX_FAILED: Row(EXCEPTION, 1, "the index cannot be read or written; nothing was done"),
    Code.UNREACHABLE: Row(NEVER_SENT, 69, "no daemon can be reached or started"),
    Code.MAYBE_APPLIED: Row(NEVER_SENT, 69, "the connection was lost before the answer came"),
    Code.NESTED: Row(NEVER_SENT, 4, "inside a session no daemon is started, and none runs"),
    Code.PROTOCOL_VIOLATION: Row(NEVER_SENT, 1, "the other end does not keep to the protocol"),
}


class PtydError(Exception):
    """A refusal or failure with a code to act on, a sentence to show, and data to look at.

    Attributes:
        code: which row of TABLE.
        message: lower case; what happened, and what to do next.
        data: str keys; only what MessagePack can carry.
    """

    def __init__(self, code: Code, message: str, **data: Any) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.data: dict[str, Any] = data

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    @property
    def number(self) -> int:
        return TABLE[self.code].number

    @property
    def exit_status(self) -> int:
        return TABLE[self.code].exit_status

    def to_wire(self, as_map: bool) -> object:
        """The `error` of a response: a map if the client asked for maps in its hello."""
        if as_map:
            return {"code": self.code.value, "message": self.message, "data": self.data}
        return [self.number, f"{self.code}: {self.message}"]

    @classmethod
    def from_wire(cls, error: object) -> Self:
        """The error that either form stands for; anything else is `internal`, and says so."""
        match error:
            case {"code": str(code), "message": str(message), **rest}:
                data = rest.get("data")
                return cls._from_text(code, message, data if isinstance(data, dict) else {})
            case [int(), str(text)]:
                code, _, message = text.partition(": ")
                return cls._from_text(code, message, {})
            case _:
                return cls(Code.INTERNAL, f"an error in an unknown form: {error!r:.200}")

    @classmethod
    def _from_text(cls, code: str, message: str, data: dict[str, Any]) -> Self:
        try:
            error = cls(Code(code), message)
        except ValueError:  # a newer daemon's code: its text is kept
            error = cls(Code.INTERNAL, f"{code}: {message}" if message else code)
        error.data = data
        return error
