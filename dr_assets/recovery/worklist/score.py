"""What a work-list was worth, once it is known what had really happened: actions proposed against the right ones.

What belongs here: the credits and the score. What stays out: how the truth is known (a test has the workload's record).

A list that holds everything is safe and useless, so it scores zero by construction: the score is how far the credits
got from all-`hold` towards all-right. Harm counts below zero: money credited or stakes taken that should not have been.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from dr_assets.estate.errors import PolicyError
from dr_assets.recovery.worklist.rules import ACTIONS

# CREDITS[right][proposed]. Asking where the answer was replay costs a question; replaying what must not be costs money.
CREDITS: Final[Mapping[str, Mapping[str, float]]] = {
    "replay": {"replay": 1.0, "ask_provider": 0.25, "hold": 0.0, "refund": -1.0, "none": -1.0},
    "refund": {"refund": 1.0, "ask_provider": 0.25, "hold": 0.0, "replay": -2.0, "none": -1.0},
    "ask_provider": {"ask_provider": 1.0, "hold": 0.0, "replay": -1.0, "refund": -1.0, "none": -1.0},
    "none": {"none": 1.0, "ask_provider": 0.25, "hold": 0.0, "replay": -2.0, "refund": -2.0},
    "hold": {"hold": 1.0, "ask_provider": 0.5, "replay": -2.0, "refund": -2.0, "none": -1.0},
}


@dataclass(frozen=True)
class Score:
    """`score` is 1 for all right, 0 for all held, below where the list did harm. `right` lines had the right action.

    `harmful` lines moved money that should have stayed. `confusion` counts (right, proposed).
    """

    score: float
    lines: int
    right: int
    harmful: int
    confusion: Mapping[tuple[str, str], int]


def score(pairs: Iterable[tuple[str, str]]) -> Score:
    """Score (right, proposed) pairs, one a line.

    Raises PolicyError (`worklist.score`) for an action that there isn't, and where nothing could be better than held.
    """
    confusion: dict[tuple[str, str], int] = {}
    for right, proposed in pairs:
        if right not in ACTIONS or proposed not in ACTIONS:
            raise PolicyError(
                "worklist.score", f"no such action: {right!r} or {proposed!r}", f"use {', '.join(ACTIONS)}"
            )
        confusion[right, proposed] = confusion.get((right, proposed), 0) + 1
    gained = sum(CREDITS[right][proposed] * count for (right, proposed), count in confusion.items())
    held = sum(CREDITS[right]["hold"] * count for (right, _), count in confusion.items())
    best = sum(CREDITS[right][right] * count for (right, _), count in confusion.items())
    if best == held:
        raise PolicyError("worklist.score", "no line had a better action than hold", "there is nothing to score")
    return Score(
        score=(gained - held) / (best - held),
        lines=sum(confusion.values()),
        right=sum(count for (right, proposed), count in confusion.items() if right == proposed),
        harmful=sum(
            count
            for (right, proposed), count in confusion.items()
            if proposed in {"replay", "refund"} and right != proposed
        ),
        confusion=confusion,
    )
