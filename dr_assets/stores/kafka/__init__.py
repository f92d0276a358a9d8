"""Kafka: topics captured as the broker's own record batches, restored offset-identically, or with a map where not.

What belongs here: everything that speaks Kafka's protocol or reads its batches. What stays out: running brokers
(engines/) and sealing (vault/).
"""
