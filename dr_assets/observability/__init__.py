"""What an outsider can watch: Prometheus metrics of the resident processes.

What belongs here: counting and serving. What stays out: what is counted (stores/) and who is alarmed.
"""
