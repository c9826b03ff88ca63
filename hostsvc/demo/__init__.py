"""`make run`: the host service, and the story that it is for.

On a terminal: the service in the foreground on the user's own defaults. Without one: a story told line by
line on real programs, in a private directory. First a workspace, a polite session and a rude one, a
deletion, SIGKILL of the service and of ptyd's daemon in the middle of it, a restart that finishes it, and the
proof that nothing is left. Then work at risk that is not deleted, what was deleted and comes back, and a job
that is killed and swept. Owns nothing but the story, and ends all that it started whatever happens.
"""
