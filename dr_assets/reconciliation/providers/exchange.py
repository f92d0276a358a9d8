"""A payment in one currency that the provider settles in another: two lines, since each currency is judged by itself.

What belongs here: the split. What stays out: rates. The ledger knows what the customer paid, the batch what came of it:
the first line has the customer's amount and no batch, the second (`transfer`) what it became, with fee and batch.
"""

from collections.abc import Iterator
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from dr_assets.reconciliation.providers.amounts import minor_units
from dr_assets.reconciliation.providers.currencies import exponents_of
from dr_assets.reconciliation.providers.lines import Place, line_batch

_OF_CUSTOMERS: Final = pa.array(["payment", "refund", "chargeback", "reversal", "payout"])


def exchanged(
    provider: str, place: Place, columns: dict[str, Any], amount: pa.Array, currency: pa.Array
) -> Iterator[pa.RecordBatch]:
    """The lines, and for each that was exchanged the customer's own; `amount` is decimal text of either sign."""
    settled = line_batch(provider, place, columns)
    differs = pc.and_(
        pc.and_(pc.not_equal(currency, ""), pc.not_equal(currency, columns["currency"])),
        pc.is_in(columns["kind"], value_set=_OF_CUSTOMERS),
    )
    rows = pc.indices_nonzero(differs)
    if not len(rows):
        yield settled
        return
    customer = settled.take(rows)
    codes, texts = currency.take(rows), amount.take(rows)
    minor = minor_units(
        texts, exponents_of(codes, place.of("the customer's currency")), place.of("the customer's amount")
    )
    signed = pc.multiply(pc.abs(minor), pc.sign(customer.column("gross_minor")))
    nothing = pa.array([0] * len(rows), pa.int64())
    yield _with(customer, currency=codes, gross_minor=signed, fee_minor=nothing, net_minor=signed, batch=None)
    yield _with(settled, kind=pc.if_else(differs, "transfer", settled.column("kind")))


def _with(rows: pa.RecordBatch, **changed: Any) -> pa.RecordBatch:
    """The rows with some columns changed; None makes one NULL."""
    arrays = [
        rows.column(field.name)
        if field.name not in changed
        else pa.nulls(rows.num_rows, field.type)
        if changed[field.name] is None
        else changed[field.name].cast(field.type)
        for field in rows.schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=rows.schema)
