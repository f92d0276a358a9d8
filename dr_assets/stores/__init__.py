"""One folder per kind of store: capturing it, restoring it, and where it is in its stream (position).

What belongs here: what knows a store's own protocol and files. What stays out: the vault, the drills, Dagster.
"""
