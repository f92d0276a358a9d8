"""`make bench-kafka`: exporting, capturing live, restoring topics of Apache Kafka, beside kafka-python's consumer.

What belongs here: measuring. What stays out: arithmetic over rows (benchmarks/postgres/rows.py).
"""
