"""Data keys, how they are wrapped, and the write-once objects that hold the wrappings.

What belongs here: key providers, derivation, key objects, the ring that caches. What stays out: signatures.
"""
