"""Drift that checks don't name: what a backup's statistics say, held to those of the backups before.

What belongs here: series of numbers, what is ordinary for each, suspicions with their evidence. What stays out:
gathering (stores/postgres/statistics.py), when that happens (proving/), and blocking anything: a suspicion is amber.
"""
