"""The life of data keys: which one writes, when the next one comes, which key-encryption keys are retired, escrow.

What belongs here: decisions about keys, each a signed fact in the vault. What stays out: wrapping and storing
(keys/ring.py, keys/wrappings.py), which obey them.
"""
