import random
import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from dr_assets.estate.errors import PolicyError, SourceError
from dr_assets.reconciliation.providers.amounts import minor_units
from dr_assets.reconciliation.providers.lines import Place
from dr_assets.reconciliation.providers.open import Feed, FeedFormat, provider_lines

SAMPLES = Path(__file__).parent / "provider_samples"
SUBJECT = Place("f.csv", 2, "gross")


def read(format_: FeedFormat, place: Path, mapping: Path | None = None) -> list[dict[str, Any]]:
    """Every line of a feed."""
    with provider_lines([Feed("acme", format_, place, mapping)]) as reader:
        return reader.read_all().to_pylist()


def us(text: str) -> int:
    """Microseconds of an ISO moment in UTC."""
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1_000_000)


def short(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What tells lines apart."""
    names = ("reference", "kind", "currency", "gross_minor", "fee_minor", "net_minor", "batch", "original_reference")
    return [tuple(row[name] for name in names) for row in rows]


def test_stripe_report_as_lines() -> None:
    """Every category has its kind, amounts are minor units of their currency, an exchanged payment is two lines."""
    rows = read("stripe", SAMPLES / "stripe.csv")
    assert short(rows) == [
        ("ch_3", "payment", "SEK", 100000, 0, 100000, None, None),
        ("ch_1", "payment", "EUR", 10000, 320, 9680, "po_1", None),
        ("ch_2", "payment", "JPY", 5000, 150, 4850, None, None),
        ("re_1", "refund", "EUR", -4000, 0, -4000, "po_1", "ch_1"),
        ("du_1", "chargeback", "EUR", -10000, 1500, -11500, None, "ch_9"),
        ("ch_3", "transfer", "EUR", 9000, 200, 8800, "po_1", None),
        ("po_1", "batch", "EUR", -14480, 0, -14480, "po_1", None),
        ("txn_7", "fee", "KWD", -1005, 0, -1005, None, None),
        ("tr_1", "transfer", "EUR", -750, 0, -750, None, None),
    ]
    assert (rows[1]["provider"], rows[1]["file"], rows[1]["line"]) == ("acme", "stripe.csv", 2)
    assert (rows[1]["booked_us"], rows[1]["settled_us"]) == (us("2026-03-01T10:00:00"), us("2026-03-03"))


def test_stripe_transfers_may_be_payouts(tmp_path: Path) -> None:
    """Where transfers go to customers, an option says so."""
    options = tmp_path / "options.yaml"
    options.write_text("payouts: [transfer]\n")
    assert short(read("stripe", SAMPLES / "stripe.csv", options))[-1][:2] == ("tr_1", "payout")


def test_adyen_report_as_lines() -> None:
    """Credit and debit become one sign, costs one fee, a payout's transaction its reference; zones are heeded."""
    rows = read("adyen", SAMPLES / "adyen.csv")
    assert short(rows) == [
        ("8835000000000003", "payment", "SEK", 10000, 0, 10000, None, None),
        ("8835000000000001", "payment", "EUR", 500, 12, 488, "4", None),
        ("9915000000000002", "chargeback", "EUR", -34999, 750, -35749, "4", "8835000000000002"),
        ("8835000000000003", "transfer", "EUR", 900, 10, 890, "4", None),
        ("9915000000000004", "refund", "EUR", -200, 0, -200, "4", "8835000000000001"),
        ("8835000000000005", "payout", "EUR", -300, 10, -310, "4", None),
        ("Transaction Fees March 2026", "fee", "EUR", -25, 0, -25, "4", None),
        ("TX19QSHX4LWBXT", "batch", "EUR", 34906, 0, 34906, "4", None),
    ]
    assert rows[1]["booked_us"] == us("2026-03-01T09:00:00")
    assert rows[2]["booked_us"] == us("2026-07-01T08:00:00")
    batch = [row for row in rows if row["batch"] == "4"]
    assert sum(row["net_minor"] for row in batch if row["kind"] != "batch") == -sum(
        row["net_minor"] for row in batch if row["kind"] == "batch"
    )


def test_any_csv_by_its_mapping() -> None:
    """Names, delimiter, decimal comma, dates of a zone, signs by kind, a byte order mark; what is ignored is gone."""
    rows = read("csv", SAMPLES / "acme.csv", SAMPLES / "acme.yaml")
    assert short(rows) == [
        ("A-1", "payment", "EUR", 10000, 150, 9850, None, None),
        ("W-1", "payout", "EUR", -2000, 0, -2000, None, None),
        ("A-2", "refund", "EUR", -500, 0, -500, None, "A-1"),
    ]
    assert [row["line"] for row in rows] == [2, 3, 5]
    assert rows[0]["booked_us"] == us("2026-02-28T23:30:00")
    assert rows[1]["booked_us"] == us("2026-07-01T10:00:00")


@pytest.mark.parametrize("digits", ["all", "needed"])
def test_amounts_are_exact(digits: str) -> None:
    """Ten thousand random amounts of every size and exponent are what decimal arithmetic says; nothing is rounded.

    Whether a file writes all digits of the currency (`5.00`) or those that it needs (`5`).
    """
    rng = random.Random(6)
    texts, exponents, expected = [], [], []
    for _ in range(10_000):
        exponent = rng.choice((0, 2, 3, 4))
        minor = rng.choice((-1, 1)) * rng.randint(0, 10 ** rng.randint(1, 18))
        text = f"{Decimal(minor).scaleb(-exponent):f}"
        texts.append(text.rstrip("0").rstrip(".") if digits == "needed" and "." in text else text)
        exponents.append(exponent)
        expected.append(minor)
    assert minor_units(pa.array(texts), pa.array(exponents, pa.int8()), SUBJECT).to_pylist() == expected


BAD_AMOUNTS = {
    "1,000.00": "no plain decimal number",
    "1.000,00": "no plain decimal number",
    "10.005": "has 3 decimals, its currency has 2",
    "10.000": "has 3 decimals, its currency has 2",
    "1e2": "no plain decimal number",
    "+5": "no plain decimal number",
    "5.": "no plain decimal number",
    ".5": "no plain decimal number",
    "": "no plain decimal number",
    "--5": "no plain decimal number",
    "5-": "no plain decimal number",
    " 5": "no plain decimal number",
    "NaN": "no plain decimal number",
    "92233720368547758.08": "does not fit 64 bits",
    "٣": "no plain decimal number",
}


@pytest.mark.parametrize("text", BAD_AMOUNTS)
def test_what_is_no_amount_is_refused_where_it_stands(text: str) -> None:
    """Separators of thousands, too many decimals and everything else that could be misread: file, line and column."""
    with pytest.raises(SourceError, match=BAD_AMOUNTS[text]) as raised:
        minor_units(pa.array(["1.00", text, "2.00"]), pa.array([2, 2, 2], pa.int8()), SUBJECT)
    assert "f.csv, line 3, column gross" in raised.value.found


def test_columns_of_short_texts_are_exact_or_refused() -> None:
    """Digits, points and signs in any order: what decimal arithmetic says, or the first bad text is named."""
    rng = random.Random(7)
    taken = 0
    for _ in range(6000):
        exponents = [rng.choice((0, 1, 2)) for _ in range(2)]
        texts = ["".join(rng.choices("03.-", (3, 3, 2, 2), k=rng.randint(1, 4))) for _ in exponents]
        plain = [re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", text) is not None for text in texts]
        fits = [len(text.partition(".")[2]) <= exponent for text, exponent in zip(texts, exponents, strict=True)]
        given = pa.array(["0", *texts]), pa.array([0, *exponents], pa.int8())
        if all(plain) and all(fits):
            minor = [int(Decimal(text).scaleb(exponent)) for text, exponent in zip(texts, exponents, strict=True)]
            assert minor_units(*given, SUBJECT).to_pylist() == [0, *minor]
            taken += 1
        else:
            bad = next(row for row, ok in enumerate(zip(plain, fits, strict=True)) if not all(ok))
            with pytest.raises(SourceError, match=f"f.csv, line {bad + 3}, column gross"):
                minor_units(*given, SUBJECT)
    assert taken > 100


def test_a_decimal_comma_has_no_points_beside_it() -> None:
    """With a decimal comma, `1.000` could be one or a thousand: refused."""
    assert minor_units(pa.array(["-1,50"]), pa.array([2], pa.int8()), SUBJECT, ",").to_pylist() == [-150]
    with pytest.raises(SourceError, match="the decimal separator being a comma"):
        minor_units(pa.array(["1.000"]), pa.array([2], pa.int8()), SUBJECT, ",")


def stripe_text() -> bytes:
    """The good sample, without its quoted two-line description."""
    return (SAMPLES / "stripe.csv").read_bytes().replace(b'"Refund ""partial""\nof two lines"', b"Refund")


BREAKAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _: b"", "it is empty"),
    "cut in a line": (lambda text: text[:-40], "does not end"),
    "cut in a value": (lambda text: text[:-2], "does not end"),
    "a value too few": (
        lambda text: text.replace(b",ch_2,ch_2", b",ch_2"),
        "line 3 has 13 values where the header has 14",
    ),
    "a value too many": (lambda text: text.replace(b"ch_2,ch_2", b"ch_2,ch_2,x"), "line 3 has 15 values"),
    "another header": (lambda text: text.replace(b"gross", b"amount", 1), "no column gross"),
    "a column twice": (lambda text: text.replace(b"description", b"gross", 1), "column gross is there twice"),
    "a quote never closed": (lambda text: text.replace(b"txn_4", b'"txn_4', 1), "never closed|middle of a value"),
    "a quote within a value": (lambda text: text.replace(b"txn_4", b'txn"_"4', 1), "line 5 has a quote in the middle"),
    "lines joined by quotes": (
        lambda text: text.replace(b"jpy,\n", b'jpy,"x\n', 1).replace(b"eur,Refund", b'eur,"Refund', 1),
        "quote in the middle",
    ),
    "zero bytes": (lambda text: text.replace(b"txn_4", b"\0\0\0\0\0", 1), "zero bytes"),
    "latin-1": (lambda text: text.replace(b"ch_2", b"ch_\xe9", 1), "not UTF-8"),
    "UTF-16": (lambda text: text.decode().encode("utf-16"), "is UTF-16"),
    "compressed": (lambda _: b"\x1f\x8b\x08\x00\n", "is compressed"),
    "an error page": (lambda _: b"<html>gone</html>\n", "is no CSV"),
    "an unknown category": (lambda text: text.replace(b"dispute", b"mystery", 1), "line 5, column reporting_category"),
    "an unknown currency": (lambda text: text.replace(b"kwd", b"xxx", 1), "line 8, column currency: 'XXX'"),
    "no date": (lambda text: text.replace(b"2026-03-02 00:00:00", b"02/03/2026", 1), "line 5, column created_utc"),
    "decimals that yen don't have": (lambda text: text.replace(b"5000,150", b"5000.00,150", 1), "has 2 decimals"),
    "thousands": (lambda text: text.replace(b"-144.80,0", b'"-1,144.80",0', 1), "line 7, column gross"),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_a_broken_file_is_refused_with_a_sentence(name: str, tmp_path: Path) -> None:
    """No broken file is read in part: the error says what is wrong and where, and an engine that reads it stops."""
    damage, expected = BREAKAGES[name]
    path = tmp_path / "broken.csv"
    path.write_bytes(damage(stripe_text()))
    with pytest.raises(SourceError, match=expected) as raised, provider_lines([Feed("s", "stripe", path)]) as reader:
        duckdb.connect().register("arriving", reader).execute("CREATE TABLE t AS SELECT * FROM arriving")
    assert raised.value.code == "reconciliation.file"
    assert "broken.csv" in raised.value.found


def test_line_ends_and_marks_make_no_difference(tmp_path: Path) -> None:
    """CRLF, a byte order mark and blank lines at the end are read right."""
    other = tmp_path / "crlf.csv"
    other.write_bytes(b"\xef\xbb\xbf" + stripe_text().replace(b"\n", b"\r\n") + b"\r\n")
    good = tmp_path / "good.csv"
    good.write_bytes(stripe_text())
    assert short(read("stripe", other)) == short(read("stripe", good))


def test_one_file_twice_is_refused(tmp_path: Path) -> None:
    """The same content under two names would count twice; hidden files are nobody's; an empty folder is no feed."""
    for name in ("march.csv", "march (1).csv", ".partial"):
        (tmp_path / name).write_bytes(stripe_text())
    with pytest.raises(SourceError, match="same file as"):
        read("stripe", tmp_path)
    (tmp_path / "march (1).csv").unlink()
    assert len(read("stripe", tmp_path)) == 9
    (tmp_path / "march.csv").unlink()
    with pytest.raises(SourceError, match="no file in its folder"):
        read("stripe", tmp_path)


BAD_MAPPINGS = {
    "columns: {reference: a, gross: b}": "columns lacks booked",
    "columns: {reference: a, gross: b, booked: c}": "either columns.kind with kinds",
    "columns: {reference: a, gross: b, booked: c}\nkind: payment": "either columns.currency",
    "columns: {reference: a, gross: b, booked: c}\nkind: deposit\ncurrency: EUR": "there is no kind deposit",
    "columns: {reference: a, gross: b, booked: c}\nkind: payment\ncurrency: EURO": "ISO 4217",
    "columns: {reference: a, gross: b, booked: c}\nkind: payment\ncurrency: EUR\nsign: plus": "sign is 'plus'",
    "columns: {reference: a, gross: b, booked: c}\nkind: payment\ncurrency: EUR\ndelimeter: ;": "no key delimeter",
    "columns: {reference: a, gross: b, booked: c}\nkind: payment\ncurrency: EUR\ndates: {zone: Malta}": "no time zone",
    "- a": "no YAML mapping",
}


@pytest.mark.parametrize("text", BAD_MAPPINGS)
def test_a_mapping_is_judged_before_any_file(text: str, tmp_path: Path) -> None:
    """What a mapping lacks or doesn't know is said before a file is opened."""
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(text)
    with pytest.raises(PolicyError, match=BAD_MAPPINGS[text]):
        read("csv", SAMPLES / "acme.csv", mapping)


def test_amounts_may_be_minor_units_already(tmp_path: Path) -> None:
    """Minor units have no decimals whatever the currency, costs may be written negative, signs the other way round."""
    (tmp_path / "m.yaml").write_text(
        "columns: {reference: r, gross: g, fee: f, currency: c, booked: d}\nkind: payment\namounts: minor\n"
        "sign: inverted\nfees: negative\n"
    )
    (tmp_path / "f.csv").write_text("r,g,f,c,d\nA,-1500,-7,EUR,2026-03-01T10:00:00+01:00\n")
    (row,) = read("csv", tmp_path / "f.csv", tmp_path / "m.yaml")
    assert (row["gross_minor"], row["fee_minor"], row["net_minor"]) == (1500, 7, 1493)
    assert row["booked_us"] == us("2026-03-01T09:00:00")


def test_a_first_line_without_end_is_told(tmp_path: Path) -> None:
    """A name of two hundred thousand letters is no column's, and no traceback either."""
    path = tmp_path / "report.csv"
    path.write_text("a" * 200_000 + ",b\n1,2\n")
    with pytest.raises(SourceError, match="line of names"), provider_lines([Feed("cards", "stripe", path)]) as lines:
        lines.read_all()


def test_files_in_folders_of_a_day_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    """Providers drop files in folders of a day: each is read, named by its place; hidden ones aren't a provider's."""
    text = (SAMPLES / "stripe.csv").read_text()
    for day in ("2026-03-02", "2026-03-01", ".staging"):
        (tmp_path / day / "eur").mkdir(parents=True)
        (tmp_path / day / "eur" / "settlement.csv").write_text(text.replace("ch_1", f"ch_{day}"))
    (tmp_path / "2026-02.csv").write_text(text)
    (tmp_path / "2026-03-03").mkdir()
    rows = read("stripe", tmp_path)
    assert list(dict.fromkeys(row["file"] for row in rows)) == [
        "2026-02.csv", "2026-03-01/eur/settlement.csv", "2026-03-02/eur/settlement.csv",
    ]  # fmt: skip


def test_what_is_wrong_in_a_subfolder_is_named_by_its_place(tmp_path: Path) -> None:
    """A broken file, the same file twice over, and what is no file at all: never passed over."""
    for day in ("01", "02"):
        (tmp_path / day).mkdir()
        (tmp_path / day / "s.csv").write_text((SAMPLES / "stripe.csv").read_text())
    with pytest.raises(SourceError, match=r"02/s.csv: it is the same file as 01/s.csv"):
        read("stripe", tmp_path)
    (tmp_path / "02" / "s.csv").write_text("")
    with pytest.raises(SourceError, match=r"02/s.csv: it is empty"):
        read("stripe", tmp_path)
    (tmp_path / "02" / "s.csv").unlink()
    (tmp_path / "02" / "gone.csv").symlink_to(tmp_path / "nowhere")
    with pytest.raises(SourceError, match=r"gone.csv: it is no file"):
        read("stripe", tmp_path)
    (tmp_path / "02" / "gone.csv").unlink()
    (tmp_path / "02" / "again").symlink_to(tmp_path)
    with pytest.raises(SourceError, match=r"it is the same file as|lies too deep"):
        read("stripe", tmp_path)
