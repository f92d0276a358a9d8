"""What every store's capture needs on its way into the vault: sealing in parallel, putting, and work beside the stream.

What belongs here: what doesn't care which stream a piece is cut from. What stays out: the cuts themselves (postgres/,
kafka/) and the vault.
"""
