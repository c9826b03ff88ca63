"""Runs: what belongs together and is ended together, whatever it is.

`policy` decides and is pure; `lifecycle` starts and ends runs; each other module is a plug-in: one sort of
resource that can carry a run's label. A further sort is a further module, and a line in `hostsvc.service`.
"""
