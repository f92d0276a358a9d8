"""Erasure of people: asked for, weighed against what the law keeps, agreed to, carried out, certified.

What belongs here: requests, opposing rules and holds, certificates, and how far each erasure has come, all as facts.
What stays out: destroying keys (vault/subjects/), erasing rows from restores (stores/), who may agree
(vault/approvals/). docs/erasure.md is the procedure.
"""
