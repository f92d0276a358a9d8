"""Throwaway local servers (Postgres, SeaweedFS) for restore sandboxes, tests and the embedded estate.

What belongs here: finding server programs, starting and stopping them so that none outlives us, and placing their
files where an unprivileged user can reach them. What stays out: what is stored in them, and every rule about it.
"""
