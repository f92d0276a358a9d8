"""The transparency log: what the vault holds, told in a way that outsiders can check (docs/log.md).

What belongs here: the tree, its files, checkpoints, proofs of inside and outside. What stays out: what is logged.
"""
