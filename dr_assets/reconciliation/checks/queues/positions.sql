-- A group's next offset lies within its partition. Beyond the end it would pass over what is written next; below the
-- begin it has lost records that were deleted before it read them. How far it is behind is told when it is too far.
-- reads: group_offsets
-- severity: lag=amber
SELECT 'committed_beyond_end' AS reason, NULL AS account, NULL AS transfer, NULL AS currency, NULL AS amount_minor,
       topic || '/' || CAST(partition AS VARCHAR) || ': next is ' || CAST(committed AS VARCHAR) || ', the end is '
       || CAST(end_offset AS VARCHAR) AS detail,
       group_name AS reference, CAST(NULL AS BIGINT) AS at_us
FROM group_offsets WHERE committed > end_offset
UNION ALL
SELECT 'committed_below_begin', NULL, NULL, NULL, NULL,
       topic || '/' || CAST(partition AS VARCHAR) || ': next is ' || CAST(committed AS VARCHAR) || ', the begin is '
       || CAST(begin_offset AS VARCHAR), group_name, NULL
FROM group_offsets WHERE committed < begin_offset
UNION ALL
SELECT 'lag', NULL, NULL, NULL, NULL,
       topic || '/' || CAST(partition AS VARCHAR) || ': ' || CAST(end_offset - committed AS VARCHAR)
       || ' behind the end ' || CAST(end_offset AS VARCHAR), group_name, NULL
FROM group_offsets CROSS JOIN settings WHERE end_offset - committed > lag_max AND committed >= begin_offset
