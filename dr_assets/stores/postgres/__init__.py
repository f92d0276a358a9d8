"""PostgreSQL: its WAL captured as a stream, its base backups, restores from both.

What belongs here: everything that speaks PostgreSQL's protocols or reads its files. What stays out: running servers
(engines/) and sealing (vault/).
"""
