"""What payment providers and banks send, as the relations `provider_lines` and `bank_lines`.

What belongs here: reading their files, streamed and with bounded memory; a file that is broken is refused with a
sentence that names file, line and column, never read in part. What stays out: comparing with the ledger (checks/), and
where the files come from (the dataset's `reconcile:`).
"""
