"""The rules of a work-list: read from rules.yaml, put into one expression, shown in the docs as a table.

What belongs here: reading and compiling. What stays out: the rules (rules.yaml) and the cases they judge (sql/).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final, Literal

import yaml

Action = Literal["replay", "refund", "hold", "ask_provider", "none"]
ACTIONS: Final[tuple[Action, ...]] = ("ask_provider", "hold", "refund", "replay", "none")
UNDECIDED: Final = "undecided"


@dataclass(frozen=True)
class Rule:
    """`of` are the kinds of line it judges (empty: all), `when` what must hold (None: always)."""

    name: str
    action: Action
    confidence: str
    reason: str
    of: tuple[str, ...] = ()
    when: str | None = None

    @property
    def condition(self) -> str:
        """As one expression of DuckDB over the columns of `cases`."""
        kinds = ", ".join(f"'{kind}'" for kind in self.of)
        parts = [f"what IN ({kinds})"] if kinds else []
        parts += [f"coalesce({self.when}, false)"] if self.when else []
        return " AND ".join(parts) or "true"


@cache
def rules() -> tuple[Rule, ...]:
    """Every rule, in the order in which they are asked."""
    return tuple(_read("rules"))


@cache
def consequences() -> tuple[Rule, ...]:
    """What may become of a line because of the others, and `undecided`."""
    return tuple(_read("consequences"))


def decision() -> str:
    """The name of the first rule that holds, as one expression."""
    cases = "\n".join(f"    WHEN {rule.condition} THEN '{rule.name}'" for rule in rules())
    return f"CASE\n{cases}\n    ELSE '{UNDECIDED}' END"


def _read(part: str) -> Iterator[Rule]:
    text = (files("dr_assets.recovery.worklist") / "rules.yaml").read_text(encoding="utf-8")
    each: dict[str, Any]
    for each in yaml.safe_load(text)[part]:
        yield Rule(
            name=each["name"],
            action=each["action"],
            confidence=each.get("confidence", "high"),
            reason=" ".join(each["reason"].split()),
            of=tuple(each.get("of", ())),
            when=each.get("when"),
        )
