"""The vault: sealed, signed, write-once objects in locked storage, and what reads and judges them.

What belongs here: the format's bytes, keys and signatures, the storage port with its adapters, chains, facts,
retention and verification. What stays out: what the bytes mean to a database (stores/) and servers (engines/).
"""
