"""How a dataset is proven all the time: the declaration `prove:` and what it comes to.

What belongs here: cadences and bounds of the resident prover, and what of them cannot be. What stays out: proving
(proving/prover/).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from dr_assets.estate.documents import Document
from dr_assets.estate.durations import DURATION_PATTERN, format_duration, parse_duration
from dr_assets.estate.findings import Finding
from dr_assets.estate.sizes import SIZE_PATTERN, parse_size

RECONCILE_MIN: Final = timedelta(seconds=10)
DEEP_MIN: Final = timedelta(minutes=5)
RESTART_MIN: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Prove:
    """The resident prover's duties: the books every `reconcile_every`, every page and index every `deep_every`.

    Every `restart_every` it begins anew from the newest base backup. Everything of it together takes `max_bytes` of
    disk at most, clones for deep passes and a second sandbox included.
    """

    reconcile_every: timedelta = timedelta(minutes=10)
    deep_every: timedelta = timedelta(hours=6)
    restart_every: timedelta = timedelta(hours=24)
    max_bytes: int = 50 << 30


class ProveDeclaration(BaseModel):
    """When a resident prover reconciles, looks at every page and begins anew, and how much disk it may take."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    reconcile_every: Annotated[str, Field(pattern=DURATION_PATTERN)] = "10m"
    deep_every: Annotated[str, Field(pattern=DURATION_PATTERN)] = "6h"
    restart_every: Annotated[str, Field(pattern=DURATION_PATTERN)] = "24h"
    max: Annotated[str, Field(pattern=SIZE_PATTERN)] = "50GiB"


def prove_of(declared: ProveDeclaration) -> Prove:
    """The accepted values."""
    return Prove(
        reconcile_every=parse_duration(declared.reconcile_every),
        deep_every=parse_duration(declared.deep_every),
        restart_every=parse_duration(declared.restart_every),
        max_bytes=parse_size(declared.max),
    )


def prove_findings(document: Document, declared: ProveDeclaration | None) -> Iterator[Finding]:
    """Cadences that no prover can keep."""
    if declared is None:
        return
    prove = prove_of(declared)
    for key, value, least in (
        ("reconcile_every", prove.reconcile_every, RECONCILE_MIN),
        ("deep_every", prove.deep_every, DEEP_MIN),
        ("restart_every", prove.restart_every, RESTART_MIN),
    ):
        if value < least:
            reason = (
                f"{format_duration(value)} is too often to get anything else done: {format_duration(least)} at least"
            )
            yield document.finding("policy.prove", reason, "prove", key)
