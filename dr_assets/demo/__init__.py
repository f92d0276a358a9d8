"""The embedded estate and the story that `make demo` tells on it.

What belongs here: putting engines, workload, capture and Dagster together on loopback, and the report. What stays
out: everything a real estate needs as well.
"""
