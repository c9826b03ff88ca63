"""The size of a session that several clients are attached to: that of whoever typed last.

An attachment that names no size has no say.
"""

from __future__ import annotations

from ptyd.daemon.attachment import Attachment
from ptyd.daemon.pending import Pending
from ptyd.daemon.session import Session


def post_resize(session: Session, rows: int, cols: int) -> Pending:
    """Have the shim set the size; taken as set from now on, so that it is not asked for twice."""
    pending = session.post({"do": "resize", "rows": rows, "cols": cols})
    session.facts |= {"rows": rows, "cols": cols}
    return pending


def fit(session: Session, attachment: Attachment) -> None:
    """Give the session the size of this attachment, if it has one and it is another."""
    size = attachment.size
    if size is None or not session.is_linked or not session.is_living:
        return
    if (session.fact("rows"), session.fact("cols")) != size:
        post_resize(session, *size)
