"""The list itself: from relations to one line for one lost thing, with an action, its reason, and a place in the order.

What belongs here: the order of steps, and the result as a value. What stays out: the steps (sql/, rules, settling),
where relations come from (sources), and how a list is written (written, page).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any, Final

import duckdb
import pyarrow as pa

from dr_assets.estate.errors import PolicyError
from dr_assets.recovery.worklist.relations import Rows, take
from dr_assets.recovery.worklist.rules import ACTIONS, Rule, consequences, decision, rules
from dr_assets.recovery.worklist.settling import settle

LINES: Final = pa.schema(
    [
        ("position", pa.int64()),  # of a replay in the order of replays, from 1
        ("what", pa.string()),
        ("reference", pa.string()),
        ("player", pa.string()),
        ("account", pa.string()),
        ("currency", pa.string()),
        ("amount_minor", pa.decimal128(38, 0)),
        ("at_us", pa.int64()),
        ("sources", pa.list_(pa.string())),
        ("action", pa.string()),
        ("rule", pa.string()),
        ("reason", pa.string()),
        ("confidence", pa.string()),
        ("idempotency_key", pa.string()),
        ("behind", pa.string()),  # the key of what must be replayed first
        ("detail", pa.string()),
    ]
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
# Nothing to do, and over before the window: what went wrong and right again before belongs to nobody's list.
_PAST: Final = """
    SELECT op FROM lines, settings WHERE action = 'none' AND last_us < since_us
"""
_RESULT: Final = """
    WITH placed AS (
        SELECT op, row_number() OVER (ORDER BY order_us, tier, op) AS position FROM lines WHERE action = 'replay'
    )
    SELECT p.position, l.what,
           coalesce(l.reference, CASE WHEN l.what IN ('bet', 'win') THEN l.chain END) AS reference, l.player, l.account,
           l.currency, l.amount_minor::DECIMAL(38, 0) AS amount_minor,
           l.at_us, l.sources, l.action, l.rule, r.reason, r.confidence, l.idempotency_key,
           CASE WHEN l.action = 'replay' THEN b.idempotency_key END AS behind,
           nullif(concat_ws('; ',
               CASE WHEN l.amounts_differ THEN concat_ws(', ', 'provider ' || l.provider_minor,
                   'game ' || l.game_minor, 'topic ' || l.topic_minor) END,
               CASE WHEN l.provider_times > 1 THEN 'shown ' || l.provider_times || ' times by the provider' END,
               CASE WHEN l.lacking_minor IS NOT NULL THEN 'lacks ' || l.lacking_minor || ' minor units' END,
               CASE WHEN l.withdrawal_state IS NOT NULL THEN 'withdrawal ' || l.chain || ' is ' || l.withdrawal_state
                    WHEN l.what LIKE 'withdrawal_%' AND l.chain IS NOT NULL THEN 'withdrawal ' || l.chain END,
               CASE WHEN l.what = 'deposit_reversed' AND l.chain IS NOT NULL THEN 'of deposit ' || l.chain END
           ), '') AS detail
    FROM lines l LEFT JOIN placed p USING (op) LEFT JOIN lines b ON b.op = coalesce(l.behind, l.needs)
    JOIN reasons r ON r.rule = l.rule
    WHERE l.op NOT IN (FROM past)
    ORDER BY array_position($actions::VARCHAR[], l.action), abs(l.amount_minor) DESC NULLS FIRST, l.at_us, l.op
"""


@dataclass(frozen=True)
class Window:
    """From the recovery point to the failure. `slack`: how far outsiders' clocks may be off ours."""

    since: datetime
    until: datetime
    slack: timedelta = timedelta(seconds=10)

    def __post_init__(self) -> None:
        if not self.since < self.until:
            raise PolicyError(
                "worklist.window",
                f"there is no time between {self.since.isoformat()} and {self.until.isoformat()}",
                "--since is the recovery point, --until the failure",
            )


@dataclass(frozen=True)
class WorkList:
    """`lines` are LINES, first what people must act on, in each action the largest amounts first.

    `read` counts what each source said in rows; `handled` what of it is on no line, by why: the restored ledger has it
    (`in_ledger`), it lies outside the window (`outside_window`), it went wrong and right again before it (`past`), or
    it is no player's money (`not_players`). Every row is in one of these or on a line.
    """

    window: Window
    lines: pa.Table
    read: Mapping[str, int]
    handled: Mapping[str, int]
    on_lines: int
    given: frozenset[str] = field(default_factory=frozenset)

    def totals(self) -> list[dict[str, Any]]:
        """Lines and money per action and currency; amounts are Python's whole numbers."""
        counted: dict[tuple[str, str], list[int]] = {}
        for line in self.lines.select(["action", "currency", "amount_minor"]).to_pylist():
            total = counted.setdefault((line["action"], line["currency"] or ""), [0, 0])
            total[0] += 1
            total[1] += int(line["amount_minor"] or 0)
        order: dict[str, int] = {action: at for at, action in enumerate(ACTIONS)}
        ranked = sorted(counted.items(), key=lambda each: (order[each[0][0]], each[0][1]))
        return [
            {"action": action, "currency": currency, "lines": lines, "amount_minor": amount}
            for (action, currency), (lines, amount) in ranked
        ]

    def per_action(self) -> dict[str, int]:
        """Lines per action, every action named."""
        actions = self.lines["action"].to_pylist()
        return {action: actions.count(action) for action in ACTIONS}


def work_list(given: Mapping[str, Rows | None], window: Window) -> WorkList:
    """What was lost in `window`, from the relations that relations.py names; those not given were asked of nobody.

    Raises PolicyError: `worklist.relation` for rows that don't fit, `worklist.left_out` for rows that no line is about.
    """
    with duckdb.connect(config={"threads": 2}) as database:
        take(database, given)
        _settings(database, given, window)
        for file in ("1_claims.sql", "2_cases.sql"):
            database.execute((files("dr_assets.recovery.worklist") / "sql" / file).read_text(encoding="utf-8"))
        database.execute(f"CREATE TABLE judged AS SELECT *, {decision()} AS rule FROM cases")  # noqa: S608 - rules.yaml
        _actions(database)
        settle(database)
        database.execute(f"CREATE TABLE past AS {_PAST}")
        found = database.sql(_RESULT, params={"actions": list(ACTIONS)}).to_arrow_table()
        listed = WorkList(
            window=window,
            lines=found.select(LINES.names).cast(LINES),
            read=_counts(database, _READ),
            handled=_counts(database, _HANDLED),
            on_lines=_counts(database, _ON_LINES).get("on_lines", 0),
            given=frozenset(name for name, rows in given.items() if rows is not None),
        )
    _require_every_row(listed)
    return listed


def _require_every_row(listed: WorkList) -> None:
    """A row that says nothing of what it is about is on no line; better no list than one that leaves it out."""
    left_out = sum(listed.read.values()) - sum(listed.handled.values()) - listed.on_lines
    if left_out:
        read = ", ".join(f"{count} of the {name}" for name, count in listed.read.items() if count)
        raise PolicyError(
            "worklist.left_out",
            f"{left_out} of the rows that were read ({read}) are on no line and not accounted for",
            "a row lacks what it is about (kind, what): correct the file, or the contract's `events:` query",
        )


# Rows, so that nothing that was read can fall between: read = handled + on lines.
_READ: Final = """
    SELECT 'provider', count(*) FROM provider_lines UNION ALL SELECT 'game', count(*) FROM rounds
    UNION ALL SELECT 'topic', count(*) FROM events
"""
_WITH_FATE: Final = """
    SELECT coalesce(h.handled, CASE WHEN c.op IN (FROM past) THEN 'past' END) AS handled, c.rows_read
    FROM claims c LEFT JOIN handled_ops h USING (op)
"""
_HANDLED: Final = f"""
    SELECT handled, sum(rows_read)::BIGINT FROM ({_WITH_FATE}) WHERE handled IS NOT NULL GROUP BY handled
    UNION ALL
    SELECT 'not_players', count(*) FROM provider_lines
    WHERE kind NOT IN ('payment', 'payout', 'refund', 'chargeback', 'reversal')
"""  # noqa: S608 - texts of ours
_ON_LINES: Final = """
    SELECT 'on_lines', coalesce(sum(rows_read), 0)::BIGINT FROM claims
    WHERE op IN (SELECT op FROM lines) AND op NOT IN (FROM past)
"""


def _counts(database: duckdb.DuckDBPyConnection, query: str) -> dict[str, int]:
    return dict(database.execute(query).fetchall())


def _settings(database: duckdb.DuckDBPyConnection, given: Mapping[str, Rows | None], window: Window) -> None:
    database.execute(
        "CREATE TABLE settings AS SELECT $since::BIGINT AS since_us, $until::BIGINT AS until_us,"
        " $slack::BIGINT AS slack_us, $game::BOOLEAN AS game_given,"
        " (SELECT max(booked_us) FROM provider_lines) AS provider_until_us,"
        " (SELECT max(at_us) FROM rounds) AS game_until_us",
        {
            "since": (window.since - _EPOCH) // _MICROSECOND,
            "until": (window.until - _EPOCH) // _MICROSECOND,
            "slack": window.slack // _MICROSECOND,
            "game": given.get("rounds") is not None,
        },
    )


def _actions(database: duckdb.DuckDBPyConnection) -> None:
    """Each rule's action beside its name; the reasons as a table."""
    known: tuple[Rule, ...] = (*rules(), *consequences())
    columns = {name: [getattr(rule, name) for rule in known] for name in ("name", "action", "reason", "confidence")}
    database.register("known_rules", pa.table(columns))
    database.execute("CREATE TABLE reasons AS SELECT name AS rule, action, reason, confidence FROM known_rules")
    database.execute(
        "CREATE OR REPLACE TABLE judged AS SELECT j.*, r.action FROM judged j JOIN reasons r ON r.rule = j.rule"
    )
    database.unregister("known_rules")
