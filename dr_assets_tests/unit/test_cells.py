"""CSV for people: no cell is a formula, amounts stay numbers, and every text can be had back as it was."""

import csv
import io
from pathlib import Path

import pyarrow as pa
import pytest

from dr_assets.proving.extract_file import files_of
from dr_assets.reconciliation.cells import as_it_was, harmless
from dr_assets.reconciliation.extracts import Answer
from dr_assets.recovery.estate_restore import ORPHANS, EstateRestore, Outcome
from dr_assets.recovery.restorers import Ground, Targets

HOSTILE = ("=1+1", "+1 234", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "＋1", "－1", "＠A", "--5", "-")  # noqa: RUF001
KEPT = ("", "Zoë", "a=1", "12", "-12", "-12.50", "9007199254740993")


@pytest.mark.parametrize("text", [*HOSTILE, *KEPT, "'", "'=1", "''x"])
def test_a_cell_gives_its_text_back(text: str) -> None:
    """What a spreadsheet would compute begins with an apostrophe; numbers don't; one apostrophe less is the text."""
    cell = harmless(text)
    assert as_it_was(cell) == text
    assert cell.startswith("'") == (text not in KEPT)


def test_no_cell_of_an_extract_is_a_formula_and_its_amounts_are_numbers() -> None:
    """A name or a reference that somebody chose is text in the CSV, and unchanged in the JSON beside it."""
    rows = tuple((text, -5, "-500", None, True) for text in HOSTILE)
    found = files_of([Answer("player", ("name", "kind", "amount_minor", "note", "open"), rows)])
    table = list(csv.DictReader(io.StringIO(found["player.csv"].decode(), newline="")))
    assert [as_it_was(row["name"]) for row in table] == list(HOSTILE)
    assert all(row["name"].startswith("'") for row in table)
    assert {(row["kind"], row["amount_minor"], row["note"], row["open"]) for row in table} == {
        ("-5", "-500", "", "True")
    }
    assert b"'" not in found["player.json"]


def test_no_cell_of_the_orphans_is_a_formula(tmp_path: Path) -> None:
    """A record's key is chosen by whoever produced it, a document's name by whoever uploaded it."""
    beside = tmp_path / "beside"
    for name, relation, table in (
        ("kyc", "documents", pa.table({"name": ["=cmd()", "players/7/a.png"], "player_id": ["@7", "7"]})),
        ("ledger", "players", pa.table({"player_id": ["7"]})),
    ):
        (beside / name).mkdir(parents=True)
        pa.parquet.write_table(table, beside / name / f"{relation}.parquet")
    restore = object.__new__(EstateRestore)
    restore._ground = Ground(None, {}, Targets(tmp_path))  # type: ignore[arg-type]  # no estate is asked
    restore._outcomes = {
        "ledger": Outcome("ledger", "postgres", "whole"),
        "kyc": Outcome("kyc", "bucket", "whole"),
    }
    counted = restore._orphans()
    assert counted is not None
    (row,) = csv.DictReader(io.StringIO((tmp_path / ORPHANS).read_text()))
    assert (row["reference"], row["place"]) == ("'@7", "'=cmd()")
