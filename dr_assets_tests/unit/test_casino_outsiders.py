"""What outsiders know: written through as it happens, and told in files that add up."""

import csv
import random
import xml.etree.ElementTree as ET
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from dr_assets.casino.__main__ import main
from dr_assets.casino.moves import Chooser
from dr_assets.casino.outsiders import Act, OutsideLog, Stake, fee_minor, provider_record, rounds_record
from dr_assets.casino.provider_files import FORMATS, write_provider_files
from dr_assets.casino.settlement import moment
from dr_assets.estate.errors import PolicyError

_NS = "{urn:iso:std:iso:20022:tech:xsd:camt.053.001.08}"
_LATER = timedelta(hours=1)


@pytest.fixture
def acks(tmp_path: Path) -> Path:
    """The record of a worker that played in four currencies."""
    wallets = [(player, ("EUR", "USD", "GBP", "JPY")[player % 4]) for player in range(1, 50)]
    chooser = Chooser(random.Random(1), wallets, "run-")
    with OutsideLog(tmp_path, "r", 0) as log:
        for number in range(3000):
            move = chooser.next_move()
            if move.act is not None:
                log.did(move.act)
            if move.stake is not None:
                log.told(move.stake, f"r/000/{number}", "acknowledged")
            chooser.succeeded(move, (number, number), f"r/000/{number}")
    return tmp_path


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_line_is_there_as_soon_as_it_happened_and_torn_ones_are_left_out(tmp_path: Path) -> None:
    """Another process reads what was done while the log is open; half a line counts as nothing."""
    act = Act("payment", "ref", 7, "EUR", 2**60 + 1)
    with OutsideLog(tmp_path, "r", 0) as log:
        log.did(act)
        assert [(done.act, done.fee_minor) for done in provider_record(tmp_path)] == [(act, fee_minor(act))]
        log.did(act.undone)
        log.told(Stake("win", 7, "EUR", 5, "bet"), "key", "refused")
    assert sum(done.act.gross_minor for done in provider_record(tmp_path)) == 0
    assert [(each.stake.opened_by, each.reference, each.status) for each in rounds_record(tmp_path)] == [
        ("bet", "key", "refused")
    ]
    file = tmp_path / "r.000.provider"
    file.write_bytes(file.read_bytes()[:-3])
    assert [done.act for done in provider_record(tmp_path)] == [act]


def test_a_players_money_goes_back_under_a_reference_of_its_own_and_once(acks: Path) -> None:
    """Refunds and chargebacks name the deposit they undo, with its amount; no deposit is undone twice."""
    acts = {done.act.reference: done.act for done in provider_record(acks)}
    assert len(acts) == len(provider_record(acks))
    undone = [act for act in acts.values() if act.kind in {"refund", "chargeback"}]
    assert {act.kind for act in undone} == {"refund", "chargeback"}
    originals = [acts[act.original_reference or ""] for act in undone]
    assert [act.gross_minor for act in originals] == [-act.gross_minor for act in undone]
    assert len({act.reference for act in originals}) == len(undone)


@pytest.mark.parametrize("format_", ["stripe", "adyen", "csv"])
def test_gross_less_fee_is_net_and_a_batchs_lines_are_what_it_pays(acks: Path, tmp_path: Path, format_: str) -> None:
    """Line by line, batch by batch, in decimals with the currency's own digits: yen have none."""
    (path,) = write_provider_files(acks, tmp_path / "out", format_, until=datetime.now(UTC) + _LATER)
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for row in _rows(path):
        gross, fee, net, batch, is_yen = _said(format_, row)
        assert gross - fee == net
        assert batch
        assert not is_yen or net == int(net)
        sums[batch] += net
    assert len(sums) >= 4
    assert set(sums.values()) == {Decimal(0)}


def _said(format_: str, row: dict[str, str]) -> tuple[Decimal, Decimal, Decimal, str, bool]:
    if format_ != "adyen":
        batch = row["automatic_payout_id" if format_ == "stripe" else "batch"]
        gross, fee, net = (Decimal(row[name]) for name in ("gross", "fee", "net"))
        return gross, fee, net, batch, row["currency"].upper() == "JPY"
    gross, net = (
        Decimal(row[f"{side} Credit ({code})"] or 0) - Decimal(row[f"{side} Debit ({code})"] or 0)
        for side, code in (("Gross", "GC"), ("Net", "NC"))
    )
    return gross, Decimal(row["Commission (NC)"] or 0), net, row["Batch Number"], row["Net Currency"] == "JPY"


def test_a_statement_opens_where_the_one_before_closed_and_its_entries_lead_there(acks: Path, tmp_path: Path) -> None:
    """Opening balance and entries are the closing balance; each batch is one entry with the provider's reference."""
    until = datetime.now(UTC) + _LATER
    paths = write_provider_files(acks, tmp_path / "out", "camt053", until=until, batch_every=timedelta(milliseconds=20))
    (stripe,) = write_provider_files(acks, tmp_path / "out", "csv", until=until, batch_every=timedelta(milliseconds=20))
    batches = {row["reference"]: -Decimal(row["net"]) for row in _rows(stripe) if row["type"] == "batch"}
    assert len(paths) == 4
    seen: dict[str, Decimal] = {}
    for path in paths:
        closed: Decimal | None = None
        for statement in ET.parse(path).getroot().iter(f"{_NS}Stmt"):  # noqa: S314 - written above
            opening, closing = (_signed(each) for each in statement.iter(f"{_NS}Bal"))
            assert closed in {None, opening}
            entries = {each.findtext(f"{_NS}AcctSvcrRef", ""): _signed(each) for each in statement.iter(f"{_NS}Ntry")}
            assert opening + sum(entries.values()) == closing
            closed = closing
            seen |= entries
    assert seen == batches


def _signed(element: ET.Element) -> Decimal:
    amount = Decimal(element.findtext(f"{_NS}Amt", ""))
    return -amount if element.findtext(f"{_NS}CdtDbtInd") == "DBIT" else amount


def test_what_is_still_open_is_told_as_such(acks: Path, tmp_path: Path) -> None:
    """At a moment in between: later acts are in no file, an open batch is not paid yet."""
    record = provider_record(acks)
    until = moment(record[len(record) // 2].at_ns)
    (path,) = write_provider_files(acks, tmp_path / "out", "csv", until=until, batch_every=timedelta(milliseconds=5))
    rows = [row for row in _rows(path) if row["type"] != "batch"]
    assert 0 < len(rows) < len(record)
    assert {row["batch"] for row in rows if not row["settled_at"]} == {""}
    paid = {row["batch"] for row in _rows(path) if row["type"] == "batch"}
    assert paid == {row["batch"] for row in rows if row["batch"]}


def test_the_bank_has_a_batch_one_span_after_it_was_closed(acks: Path, tmp_path: Path) -> None:
    """What was closed just now is on its way: paid by the provider, on no statement."""
    record, every = provider_record(acks), timedelta(milliseconds=5)
    span = moment(record[len(record) // 2].at_ns).timestamp() // every.total_seconds()
    until = datetime.fromtimestamp((span + 1) * every.total_seconds(), UTC)
    (path,) = write_provider_files(acks, tmp_path / "out", "csv", until=until, batch_every=every)
    written = write_provider_files(acks, tmp_path / "out", "camt053", until=until, batch_every=every)
    statements = "".join(each.read_text() for each in written)
    paid = [row["batch"] for row in _rows(path) if row["type"] == "batch"]
    assert 0 < sum(batch in statements for batch in paid) < len(paid)


def test_the_command_writes_each_format_and_says_where(
    acks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One path a line; a moment without its offset and an unknown format are refused."""
    for format_ in FORMATS:
        given = ["provider-files", "--acks", str(acks), "--out", str(tmp_path / "out"), "--format", format_]
        assert main(given) == 0
        written = [Path(line) for line in capsys.readouterr().out.splitlines()]
        assert all(path.stat().st_size > 0 for path in written)
    assert main([*given, "--until", "2026-01-31T12:00:00"]) != 0
    assert "casino.until" in capsys.readouterr().err
    with pytest.raises(PolicyError, match=r"casino\.provider_format"):
        write_provider_files(acks, tmp_path, "fax", until=datetime.now(UTC))


def test_the_game_providers_rounds_name_the_stake_that_opened_them(acks: Path, tmp_path: Path) -> None:
    """A win carries its round's reference; whole minor units, one line for each thing that was sent."""
    (path,) = write_provider_files(acks, tmp_path / "out", "rounds", until=datetime.now(UTC) + _LATER)
    rows = _rows(path)
    assert len(rows) == len(rounds_record(acks)) > 0
    bets = {row["idempotency_key"] for row in rows if row["kind"] == "bet"}
    assert {row["round_reference"] for row in rows} <= bets
    assert {int(row["amount_minor"]) > 0 for row in rows} == {True}
