"""A work-list as files: CSV for a spreadsheet, JSON for machines, a page for people; and its digest in the vault.

What belongs here: the three files, and the fact. What stays out: how the page looks (page.py).
"""

import csv
import hashlib
import io
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from dr_assets.estate.errors import PolicyError
from dr_assets.reconciliation.cells import harmless
from dr_assets.recovery.worklist.page import page
from dr_assets.recovery.worklist.worklist import WorkList
from dr_assets.vault.facts import record_fact
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.vault import Vault

FACT: Final = "work_list"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_COLUMNS: Final = (
    "action", "position", "what", "reference", "player", "account", "currency", "amount_minor", "at", "sources",
    "reason", "confidence", "rule", "idempotency_key", "behind", "detail",
)  # fmt: skip


@dataclass(frozen=True)
class Written:
    """The files of a list, and the SHA-256 of its JSON, which is what the vault keeps."""

    csv_path: Path
    json_path: Path
    page_path: Path
    sha256: str


def write(work_list: WorkList, folder: Path, title: str) -> Written:
    """Write `work-list.csv`, `.json` and `.html` into `folder`. Raises PolicyError (`worklist.exists`)."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"work-list.{ending}" for ending in ("csv", "json", "html")]
    if there := [path for path in paths if path.exists()]:
        raise PolicyError("worklist.exists", f"{there[0]} exists", "name another folder: a list is never overwritten")
    as_json = json_of(work_list, title)
    sha256 = hashlib.sha256(as_json).hexdigest()
    texts = (csv_of(work_list), as_json, page(work_list, title, sha256).encode())
    for path, text in zip(paths, texts, strict=True):
        path.touch(mode=0o600)  # it names players and their money
        path.write_bytes(text)
    return Written(csv_path=paths[0], json_path=paths[1], page_path=paths[2], sha256=sha256)


def seal(vault: Vault, dataset: str, work_list: WorkList, sha256: str, point: dict[str, Json] | None = None) -> str:
    """Record the list as a fact of the dataset: digest, window and totals, no player. Returns the fact's key."""
    body: dict[str, Json] = {
        "sha256": sha256,
        "since": work_list.window.since.isoformat(),
        "until": work_list.window.until.isoformat(),
        "lines": work_list.lines.num_rows,
        "per_action": dict(work_list.per_action()),
        "totals": [{**total, "amount_minor": str(total["amount_minor"])} for total in work_list.totals()],
        "read": dict(work_list.read),
        "handled": dict(work_list.handled),
        "point": point,
    }
    return str(record_fact(vault, dataset, FACT, body).key)


def rows_of(work_list: WorkList) -> list[dict[str, Any]]:
    """The lines as JSON has them: times as text, amounts as text."""
    return [
        {
            **line,
            "amount_minor": None if line["amount_minor"] is None else str(int(line["amount_minor"])),
            "at": None if line["at_us"] is None else (_EPOCH + timedelta(microseconds=line["at_us"])).isoformat(),
        }
        for line in work_list.lines.to_pylist()
    ]


def json_of(work_list: WorkList, title: str) -> bytes:
    """The whole list, keys in order, so that the same list has the same digest."""
    told = {
        "title": title,
        "since": work_list.window.since.isoformat(),
        "until": work_list.window.until.isoformat(),
        "slack_s": work_list.window.slack.total_seconds(),
        "given": sorted(work_list.given),
        "read": dict(work_list.read),
        "handled": dict(work_list.handled),
        "totals": [{**total, "amount_minor": str(total["amount_minor"])} for total in work_list.totals()],
        "lines": [{name: row[name] for name in _COLUMNS} for row in rows_of(work_list)],
    }
    return (json.dumps(told, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def csv_of(work_list: WorkList) -> bytes:
    """One row a line, with a head. No cell is a formula, whatever an outsider wrote into a reference."""
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_MINIMAL)
    writer.writerow(_COLUMNS)
    for row in rows_of(work_list):
        writer.writerow([_cell(row[name]) for name in _COLUMNS])
    return out.getvalue().encode()


def _cell(value: object) -> str:
    if value is None:
        return ""
    return harmless("; ".join(value) if isinstance(value, list) else str(value))
