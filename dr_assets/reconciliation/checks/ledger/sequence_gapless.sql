-- An account's postings are numbered 1, 2, 3 … without a gap or a repetition.
-- reads: postings
SELECT CASE WHEN sequence = previous_sequence THEN 'sequence_repeated' ELSE 'sequence_gap' END AS reason,
       account_id AS account, transfer_id AS transfer, currency, amount_minor,
       'number ' || sequence || ' after ' || previous_sequence AS detail
FROM posting_steps WHERE NOT follows
