"""Buckets of documents: captured version by version, each person's under that person's key, restored anywhere.

What belongs here: everything that knows S3 as a source or as a restore's target. What stays out: the vault's own store
(vault/storage), people's keys and erasure (vault/subjects), Dagster and the command line.
"""
