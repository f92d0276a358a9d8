-- All postings of a currency sum to zero: the one figure that an auditor asks for first. One break a currency.
-- reads: postings
SELECT 'currency_out_of_balance' AS reason, NULL AS account, NULL AS transfer, currency,
       sum(amount_minor) AS amount_minor, count(*) || ' postings' AS detail
FROM postings GROUP BY currency HAVING sum(amount_minor) <> 0
