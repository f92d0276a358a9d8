"""The page on which people work a list off: one file, no script, nothing fetched from anywhere.

What belongs here: what the page is told. What stays out: its looks (page.html.j2).

Everything that an outsider may have written comes through the template's escaping; filters are CSS.
"""

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined, Template, select_autoescape

from dr_assets.recovery.worklist.amounts import written
from dr_assets.recovery.worklist.rules import ACTIONS
from dr_assets.recovery.worklist.worklist import WorkList

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NAMES: Final = {
    "ask_provider": "Ask the provider",
    "hold": "Hold",
    "refund": "Refund",
    "replay": "Replay",
    "none": "Nothing to do",
}
_HANDLED: Final = {
    "in_ledger": "in the restored ledger",
    "outside_window": "outside the window",
    "past": "wrong and right again before it",
    "not_players": "no player's money (fees, batches)",
}


def page(work_list: WorkList, title: str, sha256: str) -> str:
    """The page as HTML. `sha256` is of the list's JSON."""
    window = work_list.window
    lines = [_line(line) for line in work_list.lines.to_pylist()]
    return _template().render(
        title=title,
        since=_moment(window.since),
        until=_moment(window.until),
        seconds=f"{(window.until - window.since).total_seconds():,.1f}",
        slack=f"{window.slack.total_seconds():g}",
        actions=[
            {
                "id": action,
                "name": _NAMES[action],
                "lines": sum(line["action"] == action for line in lines),
                "totals": [
                    f"{written(total['amount_minor'], total['currency'])} {total['currency'] or 'unknown currency'}"
                    for total in work_list.totals()
                    if total["action"] == action
                ],
            }
            for action in ACTIONS
        ],
        kinds=sorted({line["what"] for line in lines}),
        lines=lines,
        read=work_list.read,
        handled={_HANDLED.get(why, why): count for why, count in work_list.handled.items() if count},
        on_lines=work_list.on_lines,
        sha256=sha256,
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("dr_assets.recovery.worklist", package_path="."),
        autoescape=select_autoescape(("j2",), default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2")


def _line(line: dict[str, Any]) -> dict[str, Any]:
    currency = line["currency"] or ""
    at_us = line["at_us"]
    return {
        **line,
        "name": _NAMES[line["action"]],
        "amount": "?" if line["amount_minor"] is None else written(int(line["amount_minor"]), currency),
        "currency": currency or "?",
        "when": "" if at_us is None else (_EPOCH + timedelta(microseconds=at_us)).strftime("%H:%M:%S.%f")[:-3],
        "day": "" if at_us is None else (_EPOCH + timedelta(microseconds=at_us)).strftime("%Y-%m-%d"),
        "kind": line["what"].replace("_", " "),
    }


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + " UTC"
