from collections.abc import Callable
from pathlib import Path
from typing import Any

import defusedxml.ElementTree as ET  # noqa: N817 - its usual name
import pytest

from dr_assets.estate.errors import SourceError
from dr_assets.reconciliation.providers import camt
from dr_assets.reconciliation.providers.camt import _minor
from dr_assets.reconciliation.providers.lines import Sent
from dr_assets.reconciliation.providers.open import Feed, bank_lines

SAMPLES = Path(__file__).parent / "provider_samples"
ACCOUNT = "MT84MALT011000012345MTLCAST001S"
DAY_US = 86_400_000_000
MARCH_1_US = 1_772_323_200_000_000


def read(place: Path) -> list[dict[str, Any]]:
    """Every entry of a feed."""
    with bank_lines([Feed("bank", "camt053", place)]) as reader:
        return list(reader.read_all().to_pylist())


def statements(folder: Path, *changed: tuple[str, Callable[[str], str]]) -> Path:
    """Both sample statements in a folder, changed."""
    for name in ("statement-02.xml", "statement-08.xml"):
        text = (SAMPLES / name).read_text()
        for which, change in changed:
            text = change(text) if which == name else text
        (folder / name).write_text(text)
    return folder


def test_statements_of_two_versions_as_lines(tmp_path: Path) -> None:
    """Booked entries with sign and date; a batch is a row for each of its details; what is pending is not there."""
    rows = read(statements(tmp_path))
    assert [
        (row["statement"], row["line"], row["reference"], row["amount_minor"], row["reversal"]) for row in rows
    ] == [
        ("S-1", 1, "TX19QSHX4LWBXT", 34906, False),
        ("S-1", 2, "po-1", -1000, False),
        ("S-1", 2, "po-2", -2000, False),
        ("S-1", 3, "BANK-3", 3000, True),
        ("S-2", 1, "N-1", -135000, False),
    ]
    assert {(row["account"], row["currency"]) for row in rows} == {(ACCOUNT, "EUR")}
    assert (rows[0]["booked_us"], rows[0]["value_us"]) == (MARCH_1_US, MARCH_1_US + DAY_US)
    assert rows[3]["booked_us"] == MARCH_1_US + 11 * 3_600_000_000


@pytest.mark.parametrize("version", ["02", "03", "04", "05", "06", "07", "08", "10", "13"])
def test_every_version_is_read(version: str, tmp_path: Path) -> None:
    """The versions in use give the same rows."""
    path = tmp_path / "s.xml"
    path.write_text((SAMPLES / "statement-02.xml").read_text().replace("053.001.02", f"053.001.{version}"))
    assert len(read(path)) == 4


def test_ten_thousand_entries_stream(tmp_path: Path) -> None:
    """A long statement comes in several pieces and adds up."""
    text = (SAMPLES / "statement-08.xml").read_text()
    begin, end = text.index("      <camt:Ntry>"), text.index("    </camt:Stmt>")
    entry = text[begin:end].replace("1350.00", "0.01")
    path = tmp_path / "long.xml"
    path.write_text(text[:begin] + entry * 25_000 + text[end:])
    was, now = ">0.94</camt:Amt><camt:CdtDbtInd>DBIT", ">1099.06</camt:Amt><camt:CdtDbtInd>CRDT"
    path.write_text(path.read_text().replace(was, now))
    rows = read(path)
    assert (len(rows), sum(row["amount_minor"] for row in rows), rows[-1]["line"]) == (25_000, -25_000, 25_000)


WHOLE = "</Amt><CdtDbtInd>CRDT</CdtDbtInd>"  # what follows the amount of a credit


def doctype(text: str) -> Callable[[str], str]:
    """A document type in front of the document."""
    return lambda whole: whole.replace("?>", "?>" + text, 1)


LAUGHS = '<!DOCTYPE d [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9)
) + "]>"  # fmt: skip
HOSTILE = {
    "billion laughs": (lambda text: doctype(LAUGHS)(text).replace("S-1", "&j;"), "hostile XML is not read"),
    "an external entity": (
        lambda text: doctype('<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]>')(text).replace("S-1", "&x;"),
        "hostile XML is not read",
    ),
    "a document type elsewhere": (doctype('<!DOCTYPE d SYSTEM "http://127.0.0.1:9/d.dtd">'), "hostile XML is not read"),
    "an empty document type": (doctype("<!DOCTYPE d>"), "hostile XML is not read"),
    "a thousand levels": (lambda text: text.replace("<Id>S-1", "<Id>" * 1000 + "S-1"), "too deep|no whole XML"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_xml_is_refused(name: str, tmp_path: Path) -> None:
    """Entities, document types and outside references are refused before anything of them is used."""
    change, expected = HOSTILE[name]
    with pytest.raises(SourceError, match=expected):
        read(statements(tmp_path, ("statement-02.xml", change)))


BROKEN: dict[str, tuple[Callable[[str], str], str]] = {
    "cut short": (lambda text: text[:-400], "no whole XML"),
    "an entry of another amount": (lambda text: text.replace(">349.06<", ">349.07<", 1), "-1 of it is missing"),
    "an entry's sign": (
        lambda text: text.replace(f"{WHOLE}<Sts>", f"{WHOLE}<Sts>".replace("CRDT", "DBIT"), 1),
        "missing",
    ),
    "no closing balance": (lambda text: text.replace("CLBD", "CLAV"), "no opening or no closing balance"),
    "details of another sum": (lambda text: text.replace(">20.00<", ">20.01<"), "come to -3001, it is of -3000"),
    "an entry in another currency": (
        lambda text: text.replace(f'"EUR">349.06{WHOLE}<Sts>', f'"USD">349.06{WHOLE}<Sts>'),
        "missing|no opening",
    ),
    "too many decimals": (
        lambda text: text.replace(f">349.06{WHOLE}<Sts>", f">349.060{WHOLE}<Sts>"),
        "no amount in EUR",
    ),
    "no date": (lambda text: text.replace("2026-03-01</Dt></BookgDt>", "1 March</Dt></BookgDt>", 1), "no date"),
    "another message": (lambda text: text.replace("camt.053", "camt.054"), "no camt.053 statement"),
    "another bank's opening": (
        lambda text: text.replace(">1000.00<", ">1001.00<").replace(f">1349.06{WHOLE}<Dt>", f">1350.06{WHOLE}<Dt>"),
        "one is missing",
    ),
    "no statement": (
        lambda text: text[: text.index("<Stmt>")] + text[text.index("</Stmt>") + 7 :],
        "no statement in it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_statement_that_does_not_add_up_is_refused(name: str, tmp_path: Path) -> None:
    """Opening and entries give the closing balance, the next statement opens with it, details make up their entry."""
    change, expected = BROKEN[name]
    with pytest.raises(SourceError, match=expected) as raised:
        read(statements(tmp_path, ("statement-02.xml", change)))
    assert raised.value.code == "reconciliation.file"


def test_one_statement_in_two_files_is_refused(tmp_path: Path) -> None:
    """The same statement under two names, even written differently, would count twice."""
    statements(tmp_path)
    (tmp_path / "again.xml").write_text((SAMPLES / "statement-02.xml").read_text() + "\n")
    with pytest.raises(SourceError, match=r"statement S-1 .* is there twice"):
        read(tmp_path)


@pytest.mark.parametrize("encoding", ["shift_jis", "no-such-one"])
def test_an_encoding_that_the_parser_lacks_is_told(encoding: str, tmp_path: Path) -> None:
    """No traceback of the parser's own."""
    path = tmp_path / "statement.xml"
    path.write_text(f'<?xml version="1.0" encoding="{encoding}"?><Document/>')
    with pytest.raises(SourceError, match="encoding"), bank_lines([Feed("bank", "camt053", path)]) as lines:
        lines.read_all()


def test_an_amount_beyond_64_bits_is_refused(tmp_path: Path) -> None:
    """It fits no ledger's minor units, and is told so instead of ending in an overflow."""
    amount = ET.fromstring('<Amt Ccy="EUR">999999999999999999.00</Amt>')
    with pytest.raises(SourceError, match="64 bits"):
        _minor(Sent(tmp_path / "statement.xml", "statement.xml"), amount, "entry 1")


def test_a_text_without_an_end_is_refused_before_it_is_in_memory(tmp_path: Path) -> None:
    """A megabyte of one text, attribute or comments between two tags is no statement's: not more than that is read."""
    whole = (SAMPLES / "statement-02.xml").read_text()
    path = tmp_path / "statement.xml"
    for hostile in ("x" * 3_000_000, "<!-- x -->" * 300_000, f'<a b="{"x" * 3_000_000}"/>'):
        path.write_text(whole.replace("<Ntry>", hostile + "<Ntry>", 1))
        with pytest.raises(SourceError, match="bytes without a tag") as refused:
            read(path)
        assert refused.value.code == "reconciliation.file"
        assert path.name in refused.value.found


def test_an_entry_that_never_ends_is_refused_before_it_is_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What can't be let go yet is bounded as well; what follows one another may be of any length."""
    monkeypatch.setattr(camt, "_LARGEST_ENTRY_BYTES", 1 << 17)
    whole = (SAMPLES / "statement-02.xml").read_text()
    path = tmp_path / "statement.xml"
    path.write_text(whole.replace("<Ntry>", "<Ntry>" + "<a>x</a>" * 50_000, 1))
    with pytest.raises(SourceError, match="one entry of it has more than"):
        read(path)
    path.write_text(whole.replace("<Ntry>", "<a>x</a>" * 50_000 + "<Ntry>", 1))
    assert read(path)
