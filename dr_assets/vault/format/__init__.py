"""The bytes of format version 1, as docs/format.md holds them: pure functions over bytes, keys and given times.

What belongs here: everything a reader needs to open an object. What stays out: storage, clocks, key providers.
"""
