"""Segregation of duty: five identities of a store, each with the rights of one duty and no more.

What belongs here: what each duty may do (duties.py), the documents that say so to a store (documents.py), every call
that was thought of and what becomes of it (calls.py), and that as a page (table.py). What stays out: who holds which
keys (estate/) and opening a vault for a duty (connect.py).
"""
