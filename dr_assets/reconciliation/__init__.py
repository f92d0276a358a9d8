"""Does the money add up? Set-based checks over a restored ledger, each break a row with account, amount and reason.

What belongs here: the contract between a user's schema and the relations the checks know, the checks as SQL files, the
run over one consistent snapshot. What stays out: verifying bytes (vault/, stores/), deciding what a break means for a
restore (proving/), and any user's table names outside `contracts/`.
"""
