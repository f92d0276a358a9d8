"""Stripe's itemized balance reports (`balance_change_from_activity`, `payout_reconciliation`, `payouts`), as CSV.

What belongs here: their columns and reporting categories. What stays out: reading CSV (delimited.py). The dashboard's
own export has other columns: use the reports, or a mapping.
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
from dr_assets.reconciliation.providers.lines import Place, Sent, line_batch
from dr_assets.reconciliation.providers.options import Options
from dr_assets.reconciliation.providers.times import microseconds

_REQUIRED: Final = (
    "balance_transaction_id", "currency", "gross", "fee", "net", "reporting_category", "source_id",
)  # fmt: skip
_CREATED: Final = ("created_utc", "created")
_AVAILABLE: Final = ("available_on_utc", "available_on")
_FACING: Final = ("customer_facing_amount", "customer_facing_currency")
_OPTIONAL: Final = (*_CREATED, *_AVAILABLE, "charge_id", "automatic_payout_id", *_FACING)

CATEGORIES: Final[dict[str, str]] = {
    "charge": "payment",
    "refund": "refund",
    "dispute": "chargeback",
    "charge_failure": "reversal",
    "partial_capture_reversal": "reversal",
    "refund_failure": "reversal",
    "dispute_reversal": "reversal",
    "payout": "batch",
    "payout_reversal": "batch",
    "fee": "fee",
    "network_cost": "fee",
    "tax": "fee",
} | dict.fromkeys(
    (
        "advance", "advance_funding", "anticipation_repayment", "climate_order_purchase", "climate_order_refund",
        "connect_collection_transfer", "connect_reserved_funds", "contribution", "financing_paydown",
        "financing_paydown_reversal", "financing_payout", "financing_payout_reversal", "issuing_authorization_hold",
        "issuing_authorization_release", "issuing_dispute", "issuing_transaction", "obligation_inbound",
        "obligation_outbound", "other_adjustment", "payment_network_reserve_hold", "payment_network_reserve_release",
        "platform_earning", "platform_earning_refund", "reserve_hold", "reserve_release", "risk_reserved_funds",
        "topup", "topup_reversal", "transfer", "transfer_reversal", "unreconciled_customer_funds",
    ),
    "transfer",
)  # fmt: skip


def stripe_lines(provider: str, sent: Sent, options: Options) -> Iterator[pa.RecordBatch]:
    """A report's lines. Raises SourceError (`reconciliation.file`)."""
    categories = CATEGORIES | dict.fromkeys(options.payouts, "payout")
    categories |= {f"{each}_reversal": "reversal" for each in options.payouts if f"{each}_reversal" in CATEGORIES}
    for place, text in text_batches(sent, Dialect(), _REQUIRED, _OPTIONAL):
        yield from _lines(provider, place, text, categories, options)


def _lines(
    provider: str, place: Place, text: dict[str, pa.Array], categories: dict[str, str], options: Options
) -> Iterator[pa.RecordBatch]:
    currency = pc.utf8_upper(text["currency"])
    exponents = exponents_of(currency, place.of("currency"))
    kind = kinds_of(text["reporting_category"], categories, place.of("reporting_category"))
    own = or_null(plain(text[options.reference or "source_id"], place.of("source_id")))
    reference = pc.coalesce(own, text["balance_transaction_id"]) if own.null_count else own
    columns = {
        "reference": reference,
        "kind": kind,
        "batch": _batch(text, kind, reference),
        "currency": currency,
        **{f"{name}_minor": minor_units(text[name], exponents, place.of(name)) for name in ("gross", "fee", "net")},
        "booked_us": _moment(text, _CREATED, place, options.zone),
        "settled_us": _moment(text, _AVAILABLE, place, options.zone),
        "original_reference": _original(text, kind, reference),
    }
    if text.keys() >= set(_FACING):
        facing = pc.utf8_upper(text["customer_facing_currency"])
        yield from exchanged(provider, place, columns, text["customer_facing_amount"], facing)
    else:
        yield line_batch(provider, place, columns)


def _moment(text: dict[str, pa.Array], names: tuple[str, str], place: Place, zone: str) -> pa.Array:
    """The column in UTC where the report has it, else the one in the report's zone; NULL without either."""
    utc, local = names
    if utc in text:
        return microseconds(text[utc], place.of(utc))
    if local in text:
        return microseconds(text[local], place.of(local), zone=zone)
    return pa.nulls(len(text["currency"]), pa.int64())


def _batch(text: dict[str, pa.Array], kind: pa.Array, reference: pa.Array) -> pa.Array:
    """The payout that a line is settled with; a payout without a number of its own goes by its reference."""
    of = or_null(text["automatic_payout_id"]) if "automatic_payout_id" in text else pa.nulls(len(kind), pa.string())
    itself = pc.equal(kind, "batch")
    return pc.if_else(itself, pc.coalesce(of, reference), of) if pc.any(itself).as_py() else of


def _original(text: dict[str, pa.Array], kind: pa.Array, reference: pa.Array) -> pa.Array:
    """The charge that a refund, a dispute or a reversal is about, where it isn't its own reference."""
    if "charge_id" not in text:
        return pa.nulls(len(kind), pa.string())
    charge = or_null(text["charge_id"])
    follows = pc.is_in(kind, value_set=pa.array(["refund", "chargeback", "reversal"]))
    return pc.if_else(pc.and_(follows, pc.not_equal(charge, reference)), charge, pa.scalar(None, pa.string()))
