"""The resident prover: a warm copy of a dataset that follows the vault alone, and says how far it came.

What belongs here: the sandbox, how it is fed, its schedules, what is published. What stays out: restoring once
(restore_test.py), judging money (reconciliation/), telling Dagster (components/).
"""
