"""Approvals: m of n people sign the exact list of what is to be deleted, once, for a short while.

What belongs here: requests and signatures as papers (papers.py), and what is on record of them (record.py). What stays
out: who may sign (estate/approvals.py) and what is deleted.
"""

from dr_assets.vault.approvals.papers import Request, Signature, digest_of, open_papers, sign
from dr_assets.vault.approvals.record import APPROVAL, Approvals, Standing

__all__ = ["APPROVAL", "Approvals", "Request", "Signature", "Standing", "digest_of", "open_papers", "sign"]
