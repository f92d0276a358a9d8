"""Proving: nothing counts as backed up until it was restored and the money added up.

What belongs here: restore tests and what they leave on record. What stays out: how a store is restored (stores/), how
money is judged (reconciliation/), scenarios over the estate (drills/).
"""
