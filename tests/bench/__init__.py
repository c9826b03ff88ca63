"""Speed and memory beside the peers, measured and reported: `python -m tests.bench [--quick] [--save]`.

Nothing here asserts: a figure depends on the machine, and a busy one would fail for no fault of ptyd's.
What is compared with a peer is measured in turns with it, in the same run. Sees ptyd from outside: the
wire, /proc, signals. Everything runs in private directories, and every process that was started is
ended, whatever happens.
"""
