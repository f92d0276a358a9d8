SELECT casino.mark_published(%(transfers)s::bigint[])
