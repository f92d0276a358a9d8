"""The reference estate that the demo protects: a casino's ledger, its workload, and what can go wrong with it.

What belongs here: the schema (`sql/`), the workload with its record of acknowledged commits, planted incidents and
damage, the count of what was lost. What stays out: judging the money (reconciliation/ does, through a contract, and
knows none of these tables) and protecting it (stores/).
"""
