"""Recovering the estate as one: its recovery point, the restore of every dataset to it, what lies between.

What belongs here: what is asked across stores. The newest moment at which they agree and how far each is from it
(`point`), whom one store tells of and another doesn't know (`orphans`), the restore of all to that moment
(`estate_restore`), what of the outbox is to be replayed (`outbox`), and what was lost beyond the moment (`worklist`).

What stays out: how one store is restored (stores/*), whether one restored dataset is right (proving, reconciliation),
the scenario that brings everything down (drills), and Dagster (components).
"""
