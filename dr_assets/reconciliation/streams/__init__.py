"""What topics and the CRM hold, as the relations that checks read: records, partitions, group_offsets, contacts.

What belongs here: reading them into Arrow, in bounded memory. What stays out: judging them (checks/), and replaying an
outbox (recovery/).
"""
