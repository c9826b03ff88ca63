"""The index in SQLite: its schema, its rows, and every statement that touches them.

Each module owns the statements of one subject, as functions that take the open database first; none of
them knows trio. `hostsvc.index` is how the rest of the service calls them. Only these modules import
sqlite-utils.
"""
