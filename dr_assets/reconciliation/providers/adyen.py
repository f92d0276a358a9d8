"""Adyen's settlement details report, as CSV.

What belongs here: its columns and journal types. What stays out: reading CSV (delimited.py).
"""

from collections.abc import Iterator
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from dr_assets.reconciliation.providers.amounts import minor_units
from dr_assets.reconciliation.providers.currencies import exponents_of
from dr_assets.reconciliation.providers.delimited import Dialect, or_null, plain, text_batches
from dr_assets.reconciliation.providers.exchange import exchanged
from dr_assets.reconciliation.providers.kinds import kinds_of
from dr_assets.reconciliation.providers.lines import Place, Sent
from dr_assets.reconciliation.providers.options import Options
from dr_assets.reconciliation.providers.times import in_row_zones, microseconds

_GROSS: Final = ("Gross Credit (GC)", "Gross Debit (GC)")
_NET: Final = ("Net Credit (NC)", "Net Debit (NC)")
_COSTS: Final = ("Commission (NC)", "Markup (NC)", "Scheme Fees (NC)", "Interchange (NC)")
_REQUIRED: Final = (
    "Psp Reference", "Merchant Reference", "Creation Date", "TimeZone", "Type", "Modification Reference",
    "Gross Currency", *_GROSS, "Net Currency", *_NET, "Batch Number",
)  # fmt: skip
# A payout's modification reference is a sentence; the bank's statement repeats its first word.
_TRANSACTION: Final = r"^(?P<first>TX[0-9A-Z]+XT)\b"

TYPES: Final[dict[str, str]] = {
    "Settled": "payment",
    "SettledReversed": "reversal",
    "Refunded": "refund",
    "RefundedReversed": "reversal",
    "Chargeback": "chargeback",
    "SecondChargeback": "chargeback",
    "ChargebackReversed": "reversal",
    "PaidOut": "payout",
    "PaidOutReversed": "reversal",
    "MerchantPayout": "batch",
    "Fee": "fee",
    "PaymentCost": "fee",
    "MiscCosts": "fee",
    "InvoiceDeduction": "fee",
} | dict.fromkeys(
    (
        "AdvancementCommissioned", "Balancetransfer", "BankInstructionReturned", "Converted", "DepositCorrection",
        "EpaPaid", "InternalTransfer", "ManualCorrected", "MatchedStatement", "ReserveAdjustment", "Transfer",
    ),
    "transfer",
)  # fmt: skip


def adyen_lines(provider: str, sent: Sent, options: Options) -> Iterator[pa.RecordBatch]:
    """A report's lines. Raises SourceError (`reconciliation.file`)."""
    types = TYPES | dict.fromkeys(options.payouts, "payout")
    for place, text in text_batches(sent, Dialect(), _REQUIRED, _COSTS):
        yield from _lines(provider, place, text, types, options)


def _lines(
    provider: str, place: Place, text: dict[str, pa.Array], types: dict[str, str], options: Options
) -> Iterator[pa.RecordBatch]:
    kind = kinds_of(text["Type"], types, place.of("Type"))
    gross_text = _signed(text, _GROSS, place)
    currency = text["Net Currency"]
    exponents = exponents_of(currency, place.of("Net Currency"))
    net = minor_units(_signed(text, _NET, place), exponents, place.of(_NET[0]))
    # Without a gross amount nothing was exchanged and nothing deducted: the line is what it moves.
    same = pc.and_(pc.equal(text["Gross Currency"], currency), pc.not_equal(gross_text, "0"))
    costs = _costs(text, exponents, place)
    gross = pc.if_else(same, _gross(gross_text, same, exponents, place), pc.add_checked(net, costs))
    columns = {
        **_references(text, kind, place, options.reference),
        "kind": kind,
        "batch": or_null(text["Batch Number"]),
        "currency": currency,
        "gross_minor": gross,
        "fee_minor": costs,
        "net_minor": net,
        "booked_us": in_row_zones(
            microseconds(text["Creation Date"], place.of("Creation Date")), text["TimeZone"], place.of("TimeZone")
        ),
    }
    paid_in = pc.if_else(pc.equal(gross_text, "0"), "", text["Gross Currency"])
    yield from exchanged(provider, place, columns, gross_text, paid_in)


def _gross(text: pa.Array, same: pa.Array, exponents: pa.Array, place: Place) -> pa.Array:
    """The gross amounts that are in the net currency; the others are of no use here, and 0."""
    return minor_units(pc.if_else(same, text, "0"), exponents, place.of(_GROSS[0]))


def _signed(text: dict[str, pa.Array], columns: tuple[str, str], place: Place) -> pa.Array:
    """Credit, or debit with a minus in front, or 0; a line with both is refused."""
    credit, debit = (text[name] for name in columns)
    both = pc.and_(pc.not_equal(credit, ""), pc.not_equal(debit, ""))
    row = pc.index(both, True).as_py()
    if row >= 0:
        raise place.of(columns[0]).refused(row, credit[row], "stands beside a debit on the same line")
    negative = pc.binary_join_element_wise(pa.scalar("-"), debit, "")
    return pc.if_else(pc.not_equal(credit, ""), credit, pc.if_else(pc.not_equal(debit, ""), negative, "0"))


def _costs(text: dict[str, pa.Array], exponents: pa.Array, place: Place) -> pa.Array:
    """What the provider kept of the line: commission, or markup, scheme fees and interchange."""
    total = pa.array([0] * len(exponents), pa.int64())
    for name in _COSTS:
        if name in text:
            given = pc.if_else(pc.equal(text[name], ""), "0", text[name])
            total = pc.add_checked(total, minor_units(given, exponents, place.of(name)))
    return total


def _references(text: dict[str, pa.Array], kind: pa.Array, place: Place, column: str | None) -> dict[str, pa.Array]:
    """A payment and a payout by the PSP reference; what follows a payment by its own, pointing at the payment's."""
    psp = plain(text["Psp Reference"], place.of("Psp Reference"))
    modification = plain(text["Modification Reference"], place.of("Modification Reference"))
    payment = text[column] if column else psp
    first = pc.extract_regex(modification, _TRANSACTION)
    settled = pc.coalesce(pc.struct_field(first, "first"), modification)
    follows = pc.is_in(kind, value_set=pa.array(["refund", "chargeback", "reversal"]))
    by_itself = pc.is_in(kind, value_set=pa.array(["payment", "payout"]))
    reference = pc.if_else(
        by_itself, payment, pc.if_else(pc.equal(kind, "batch"), settled, pc.coalesce(or_null(modification), psp))
    )
    original = pc.if_else(
        pc.and_(follows, pc.not_equal(payment, reference)), or_null(payment), pa.scalar(None, pa.string())
    )
    return {"reference": reference, "original_reference": original}
