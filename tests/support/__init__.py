"""What tests share: waiting, processes, a daemon to test, programs to run in sessions.

Nothing here knows the inside of ptyd: it sees processes, files and the wire, as a user would.
"""
