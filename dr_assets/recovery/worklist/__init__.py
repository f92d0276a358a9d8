"""The work-list of a loss window: what was lost between the recovery point and the failure, and what to do with each.

What belongs here: relations of what the restored ledger has and of what outsiders know (`relations`), one line for one
thing (`sql/`), the rules as data (`rules.yaml`), an order in which replays can be done (`settling`), the list itself
and how people and machines read it (`worklist`, `page`, `written`), and what a list was worth afterwards (`score`).

What stays out: reading providers' files and topics (reconciliation/, stores/kafka), restoring, and doing what the list
says: a person decides, line by line or by rule. Nothing here reads what a workload wrote down of itself.
"""
