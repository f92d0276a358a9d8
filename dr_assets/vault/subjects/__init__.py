"""People's keys: one for every person, deletable, so that what is locked can still be forgotten.

What belongs here: the ring of such keys in a mutable store of its own, its deletion, its backups. What stays out:
what is encrypted under a person's key (stores/), and every locked object but the ring's backups.

Deleting a person's key makes unreadable what lies locked under it, and touches no locked object: the chain of custody
stays whole (docs/keys.md, People's keys).
"""
