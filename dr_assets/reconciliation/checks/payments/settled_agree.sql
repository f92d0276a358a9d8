-- What the provider's files say of a reference is what the ledger says: once, the same amount, one currency, in time.
-- Several captures of one payment and partial refunds add up. What is younger than `in_flight` and on one side only is on
-- its way; what is older than the files' first line is not covered by them. The amount is the provider's less the ledger's
-- (another currency: the provider's).
-- reads: payments, provider_lines
-- uses: withdrawals
-- severity: settled_late=amber
SELECT verdict AS reason, account, transfer, coalesce(line_currency, low_currency) AS currency,
       CASE verdict WHEN 'currency_differs' THEN line_minor ELSE line_minor - ledger_minor END AS amount_minor,
       lines || ' line(s) of ' || line_minor || ', ' || payments || ' payment(s) of ' || ledger_minor
       || CASE verdict WHEN 'currency_differs' THEN ', in ' || low_currency || ' and ' || high_currency ELSE '' END
       || coalesce(', first at line ' || line || ' of ' || file, '') AS detail,
       reference, coalesce(line_us, ledger_us) AS at_us
FROM kept WHERE verdict NOT IN ('matched', 'tolerated', 'in_flight', 'not_covered')
