-- What a line leaves is its gross amount less its fee. The amount is the net as the file has it less the net as computed.
-- reads: provider_lines
SELECT 'net_differs' AS reason, NULL AS account, NULL AS transfer, currency,
       net_minor - (gross_minor::HUGEINT - fee_minor) AS amount_minor,
       'line ' || line || ' of ' || file || ': ' || gross_minor || ' less ' || fee_minor || ' is not ' || net_minor AS detail,
       reference, booked_us AS at_us
FROM provider_lines WHERE net_minor <> gross_minor::HUGEINT - fee_minor
