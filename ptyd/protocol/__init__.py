"""The wire protocol, sans-I/O: bytes in, events out; no socket, no clock, no task.

From the bottom up: `limits` and `errors`; `codec` (framing, and the only importer of msgpack);
`states` (the two state tables); `fields`, then `messages`, `results` and `notifications` (what each
map may hold); `connection` (the daemon's end) and `client_connection` (the other end, which needs
no `messages`, so that a short command starts fast). `protocol.md` tells the same for people.

Nothing is imported here: whoever needs a module imports that module.
"""
