-- A transfer is as it was written.
-- reads: transfers
-- needs: transfer_digest
SELECT 'transfer_altered' AS reason, NULL AS account, transfer_id AS transfer, NULL AS currency, NULL AS amount_minor,
       'its digest is not that of its row' AS detail
FROM transfer_digests WHERE digest IS DISTINCT FROM unhex(sha256(encode(digest_text)))
