"""The page and the picture, drawn from the rows: what people read is never typed by hand.

What belongs here: tables and bars. What stays out: measuring, and the prose around (it is in docs/benchmarks.md).
"""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

BEGIN: Final = "<!-- measured: begin (drawn by `python -m benchmarks.postgres --render`) -->"
END: Final = "<!-- measured: end -->"
PICTURE: Final = "bench-postgres.svg"
_WIDTH: Final = 860
_LINE: Final = 22
_LEFT: Final = 470
_COLOURS: Final = {"ours": "#1f7a4d", "theirs": "#b8b8b8"}


def redraw(root: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw the picture, and the tables between the marks of docs/benchmarks.md and, where it has them, README.md."""
    docs = root / "docs"
    (docs / "images" / PICTURE).write_text(bars(rows), encoding="utf-8")
    for page, drawn in ((docs / "benchmarks.md", table(rows)), (root / "README.md", summary(rows))):
        text = page.read_text(encoding="utf-8")
        if BEGIN in text:
            page.write_text(between_marks(text, drawn), encoding="utf-8")


def between_marks(text: str, drawn: str, begin: str = BEGIN, end: str = END) -> str:
    """`text` with what stood between its marks replaced."""
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{drawn}\n{end}{after}"


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table of what has a floor or is compared with pgBackRest, one line a figure."""
    lines = ["| PostgreSQL | dr_assets | other | floor |", "|---|---|---|---|"]
    for each in rows:
        against = each["against"] or ""
        if each["floor"] or against.startswith("pgBackRest"):
            other = "" if each["theirs"] is None else f"{against} {each['theirs']:g}"
            floor = "" if not each["floor"] else f"{each['floor']}: {each['verdict']}"
            lines.append(f"| {each['what']} | {each['ours']:g} {each['unit']} | {other} | {floor} |")
    return "\n".join(lines)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table: one line a row, ours first."""
    lines = ["| what | unit | ours | theirs | of | ours / theirs | floor | |", "|---|---|---|---|---|---|---|---|"]
    for each in rows:
        theirs = "" if each["theirs"] is None else f"{each['theirs']:g}"
        ratio = "" if each["ratio"] is None else f"{each['ratio']:.2f}"
        verdict = {"held": "held", "missed": "**missed**"}.get(each["verdict"], "")
        cells = (each["what"], each["unit"], f"{each['ours']:g}", theirs, each["against"] or "", ratio)
        lines.append("| " + " | ".join((*cells, each["floor"] or "", verdict)) + " |")
    return "\n".join([*lines, "", _judged(rows)])


def _judged(rows: Sequence[Mapping[str, Any]]) -> str:
    """One sentence: which floors are missed, and by how much."""
    missed = [
        f"{each['what']}{' against ' + each['against'] if each['against'] else ''} "
        f"({each['ratio' if each['floor'].endswith(' x') else 'ours']:g}, floor {each['floor']})"
        for each in rows
        if each["verdict"] == "missed"
    ]
    return f"Floors missed: {'; '.join(missed)}." if missed else "Every floor is held."


def bars(rows: Sequence[Mapping[str, Any]]) -> str:
    """An SVG of every row with a ratio: both values as bars, the longer one at full length."""
    compared = [each for each in rows if each["ratio"] is not None]
    body, top = [], 30
    for each in compared:
        longest = max(each["ours"], each["theirs"]) or 1.0
        label = f"{each['what']} ({each['unit']})"
        body.append(_text(10, top + 14, label, "start"))
        for name, who in (("ours", "dr_assets"), ("theirs", str(each["against"]))):
            length = max(1.0, each[name] / longest * (_WIDTH - _LEFT - 190))
            body.append(
                f'<rect x="{_LEFT}" y="{top}" width="{length:.1f}" height="14" rx="2" fill="{_COLOURS[name]}"/>'
                + _text(_LEFT + length + 6, top + 12, f"{each[name]:g}  {who}", "start", 11)
            )
            top += 17
        top += _LINE - 12
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top + 10}" font-family="sans-serif">'
        f'<rect width="100%" height="100%" fill="#ffffff"/>'
        + _text(10, 18, "dr_assets beside other tools, medians; each pair has its own scale", "start", 13)
        + "".join(body)
        + "</svg>\n"
    )


def _text(x: float, y: float, text: str, anchor: str, size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="#222222">{escape(text)}</text>'
    )
