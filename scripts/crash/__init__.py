"""The parts of crash_rounds.py: kill real processes under load, restore from the vault alone, count what was lost.

What belongs here: the measuring harness. What stays out: anything the package needs.
"""
