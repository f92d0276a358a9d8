"""What outsiders send about the casino: settlement files, the bank's statement, the game provider's rounds.

What belongs here: the formats, with the column names that the real ones have. What stays out: the ledger; every line
comes from the outsiders' own record (outsiders.py), and how it is settled from settlement.py.

Stripe's and Adyen's files and the generic one have amounts in major units with the currency's own number of digits.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from dr_assets.casino.outsiders import Round, provider_record, rounds_record
from dr_assets.casino.schema import CURRENCIES
from dr_assets.casino.settlement import Batch, Line, Settlement, moment, settle
from dr_assets.estate.errors import PolicyError

BATCH_EVERY: Final = timedelta(seconds=5)  # a day of a provider's, in the demo's time
_EXPONENTS: Final = dict(CURRENCIES)
_OPENING_MINOR: Final = 100_000_000
_STATEMENT_BATCHES: Final = 10
_Row = Mapping[str, object]

_STRIPE_COLUMNS: Final = (
    "balance_transaction_id", "created_utc", "available_on_utc", "currency", "gross", "fee", "net",
    "reporting_category", "source_id", "charge_id", "description", "automatic_payout_id",
)  # fmt: skip
_STRIPE_KINDS: Final = {
    "payment": "charge", "refund": "refund", "chargeback": "dispute", "payout": "transfer",
}  # fmt: skip
_ADYEN_COLUMNS: Final = (
    "Company Account", "Merchant Account", "Psp Reference", "Merchant Reference", "Payment Method", "Creation Date",
    "TimeZone", "Type", "Modification Reference", "Gross Currency", "Gross Debit (GC)", "Gross Credit (GC)",
    "Exchange Rate", "Net Currency", "Net Debit (NC)", "Net Credit (NC)", "Commission (NC)", "Markup (NC)",
    "Scheme Fees (NC)", "Interchange (NC)", "Batch Number",
)  # fmt: skip
_ADYEN_KINDS: Final = {
    "payment": "Settled", "refund": "Refunded", "chargeback": "Chargeback", "payout": "PaidOut",
}  # fmt: skip
_PLAIN_COLUMNS: Final = (
    "booked_at", "settled_at", "type", "reference", "original_reference", "batch", "currency", "gross", "fee", "net",
)  # fmt: skip
_ROUND_COLUMNS: Final = (
    "round_reference", "idempotency_key", "kind", "player_id", "currency", "amount_minor", "at", "status",
)  # fmt: skip


def write_provider_files(
    acks: Path, out: Path, format_: str, *, until: datetime, batch_every: timedelta = BATCH_EVERY
) -> list[Path]:
    """Write what the outsiders of `acks` know at `until` into the folder `out`; the paths, in order.

    `format_` is one of FORMATS; the settlement formats write the provider's file, `camt053` the bank's statements (a
    file a currency) and `rounds` the game provider's. Raises PolicyError (`casino.provider_format`).
    """
    if format_ not in FORMATS:
        raise PolicyError("casino.provider_format", f"nobody sends {format_!r}", f"choose from {', '.join(FORMATS)}")
    out.mkdir(parents=True, exist_ok=True)
    if format_ == "rounds":
        known = [played for played in rounds_record(acks) if moment(played.at_ns) <= until]
        return [_table(out / "game-rounds.csv", _ROUND_COLUMNS, map(_round, known))]
    settlement = settle(provider_record(acks), until, batch_every)
    if format_ == "camt053":
        return [_statements(out, currency, settlement) for currency in _currencies(settlement)]
    name, columns, rows = _SETTLEMENTS[format_]
    return [_table(out / name, columns, rows(settlement))]


def _table(path: Path, columns: tuple[str, ...], rows: Iterable[_Row]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def _major(amount_minor: int, currency: str) -> str:
    """Whole minor units as the decimal that outsiders write; no float on the way."""
    exponent = _EXPONENTS[currency]
    sign, digits = "-" if amount_minor < 0 else "", f"{abs(amount_minor):0{exponent + 1}d}"
    return sign + (f"{digits[:-exponent]}.{digits[-exponent:]}" if exponent else digits)


def _second(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}"


def _stripe(settlement: Settlement) -> Iterator[_Row]:
    for number, line in enumerate(settlement.lines):
        act = line.done.act
        yield {
            "balance_transaction_id": f"txn_{number:012d}",
            "created_utc": _second(line.at),
            "available_on_utc": _second(line.batch.closed_at if line.batch else line.at),
            "currency": act.currency.lower(),
            "gross": _major(act.gross_minor, act.currency),
            "fee": _major(line.done.fee_minor, act.currency),
            "net": _major(line.net_minor, act.currency),
            "reporting_category": _STRIPE_KINDS.get(act.kind) or _stripe_reversal(line),
            "source_id": act.reference,
            "charge_id": act.original_reference or (act.reference if act.kind == "payment" else ""),
            "description": f"player {act.player_id}",
            "automatic_payout_id": line.batch.reference if line.batch else "",
        }
    for batch in settlement.batches:
        paid = _major(-batch.net_minor, batch.currency)
        yield {
            "balance_transaction_id": f"txn_{batch.reference}",
            "created_utc": _second(batch.closed_at),
            "available_on_utc": _second(batch.closed_at),
            "currency": batch.currency.lower(),
            "gross": paid,
            "fee": _major(0, batch.currency),
            "net": paid,
            "reporting_category": "payout",
            "source_id": batch.reference,
            "automatic_payout_id": batch.reference,
        }


def _stripe_reversal(line: Line) -> str:
    """A payment voided is a refund that failed to be kept apart; a payout returned is a transfer's reversal."""
    return "transfer_reversal" if line.done.act.gross_minor > 0 else "refund"


def _adyen(settlement: Settlement) -> Iterator[_Row]:
    """A settlement detail report lists what is settled: a line whose batch is open is not in it."""
    for line in settlement.lines:
        act, batch = line.done.act, line.batch
        if batch is not None:
            yield _adyen_row(act.currency, act.gross_minor, line.net_minor, batch) | {
                "Psp Reference": act.original_reference or act.reference,
                "Merchant Reference": f"player-{act.player_id}",
                "Payment Method": "visa",
                "Creation Date": _second(line.at),
                "Type": _ADYEN_KINDS.get(act.kind) or ("PaidOutReversed" if act.gross_minor > 0 else "Refunded"),
                "Modification Reference": act.reference if act.original_reference else "",
                "Commission (NC)": _major(line.done.fee_minor, act.currency),
            }
    for batch in settlement.batches:
        yield _adyen_row(batch.currency, -batch.net_minor, -batch.net_minor, batch) | {
            "Psp Reference": batch.reference,
            "Creation Date": _second(batch.closed_at),
            "Type": "MerchantPayout",
            "Modification Reference": batch.reference,
        }


def _adyen_row(currency: str, gross_minor: int, net_minor: int, batch: Batch) -> dict[str, object]:
    return {
        "Company Account": "Casino",
        "Merchant Account": "CasinoMT",
        "TimeZone": "UTC",
        "Gross Currency": currency,
        "Gross Debit (GC)": _major(-gross_minor, currency) if gross_minor < 0 else "",
        "Gross Credit (GC)": _major(gross_minor, currency) if gross_minor >= 0 else "",
        "Exchange Rate": "1",
        "Net Currency": currency,
        "Net Debit (NC)": _major(-net_minor, currency) if net_minor < 0 else "",
        "Net Credit (NC)": _major(net_minor, currency) if net_minor >= 0 else "",
        "Batch Number": batch.number,
    }


def _plain(settlement: Settlement) -> Iterator[_Row]:
    for line in settlement.lines:
        act, batch = line.done.act, line.batch
        yield {
            "booked_at": line.at.isoformat(),
            "settled_at": batch.closed_at.isoformat() if batch else "",
            "type": act.kind,
            "reference": act.reference,
            "original_reference": act.original_reference or "",
            "batch": batch.reference if batch else "",
            "currency": act.currency,
            "gross": _major(act.gross_minor, act.currency),
            "fee": _major(line.done.fee_minor, act.currency),
            "net": _major(line.net_minor, act.currency),
        }
    for batch in settlement.batches:
        yield {
            "booked_at": batch.closed_at.isoformat(),
            "settled_at": batch.closed_at.isoformat(),
            "type": "batch",
            "reference": batch.reference,
            "batch": batch.reference,
            "currency": batch.currency,
            "gross": _major(-batch.net_minor, batch.currency),
            "fee": _major(0, batch.currency),
            "net": _major(-batch.net_minor, batch.currency),
        }


def _round(played: Round) -> _Row:
    stake = played.stake
    return {
        "round_reference": stake.opened_by or played.reference,
        "idempotency_key": played.reference,
        "kind": stake.kind,
        "player_id": stake.player_id,
        "currency": stake.currency,
        "amount_minor": stake.amount_minor,
        "at": moment(played.at_ns).isoformat(timespec="microseconds"),
        "status": played.status,
    }


_SETTLEMENTS: Final[Mapping[str, tuple[str, tuple[str, ...], Callable[[Settlement], Iterator[_Row]]]]] = {
    "stripe": ("balance-transactions.csv", _STRIPE_COLUMNS, _stripe),
    "adyen": ("settlement-detail.csv", _ADYEN_COLUMNS, _adyen),
    "csv": ("settlement.csv", _PLAIN_COLUMNS, _plain),
}
FORMATS: Final = (*_SETTLEMENTS, "camt053", "rounds")


def _currencies(settlement: Settlement) -> list[str]:
    return sorted({batch.currency for batch in settlement.batches})


def _statements(out: Path, currency: str, settlement: Settlement) -> Path:
    """One account's statements, ten entries each; where one closes the next one opens."""
    booked = [
        (batch, batch.at_bank)
        for batch in settlement.batches
        if batch.currency == currency and batch.at_bank is not None
    ]
    balance_minor, texts = _OPENING_MINOR, []
    for number, begin in enumerate(range(0, max(len(booked), 1), _STATEMENT_BATCHES), start=1):
        entries = booked[begin : begin + _STATEMENT_BATCHES]
        opening_minor, balance_minor = balance_minor, balance_minor + sum(batch.net_minor for batch, _ in entries)
        balances = _balance("OPBD", opening_minor, currency, settlement.until) + _balance(
            "CLBD", balance_minor, currency, settlement.until
        )
        body = "".join(_entry(batch, at) for batch, at in entries)
        texts.append(
            f"<Stmt><Id>{currency}-{number:04d}</Id><ElctrncSeqNb>{number}</ElctrncSeqNb>"
            f"<CreDtTm>{settlement.until.isoformat()}</CreDtTm><Acct><Id><IBAN>{_iban(currency)}</IBAN></Id>"
            f"<Ccy>{currency}</Ccy></Acct>{balances}{body}</Stmt>"
        )
    path = out / f"statement-{currency}.xml"
    path.write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n<Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.08">'
        f"<BkToCstmrStmt><GrpHdr><MsgId>{currency}-{settlement.until:%Y%m%d%H%M%S}</MsgId>"
        f"<CreDtTm>{settlement.until.isoformat()}</CreDtTm></GrpHdr>{''.join(texts)}</BkToCstmrStmt></Document>\n",
        encoding="utf-8",
    )
    return path


def _iban(currency: str) -> str:
    """A made-up account for each currency."""
    return f"MT84MALT0110000{_EXPONENTS[currency]}2345MTLCAST{currency}"


def _balance(code: str, amount_minor: int, currency: str, at: datetime) -> str:
    return (
        f"<Bal><Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp>{_amount(amount_minor, currency)}"
        f"<Dt><Dt>{at:%Y-%m-%d}</Dt></Dt></Bal>"
    )


def _amount(amount_minor: int, currency: str) -> str:
    indicator = "DBIT" if amount_minor < 0 else "CRDT"
    return f'<Amt Ccy="{currency}">{_major(abs(amount_minor), currency)}</Amt><CdtDbtInd>{indicator}</CdtDbtInd>'


def _entry(batch: Batch, at: datetime) -> str:
    reference = escape(batch.reference)
    return (
        f"<Ntry>{_amount(batch.net_minor, batch.currency)}<Sts><Cd>BOOK</Cd></Sts>"
        f"<BookgDt><DtTm>{at.isoformat()}</DtTm></BookgDt><ValDt><Dt>{at:%Y-%m-%d}</Dt></ValDt>"
        f"<AcctSvcrRef>{reference}</AcctSvcrRef><NtryDtls><Btch><NbOfTxs>{batch.lines}</NbOfTxs></Btch>"
        f"<TxDtls><Refs><EndToEndId>{reference}</EndToEndId></Refs></TxDtls></NtryDtls></Ntry>"
    )
