"""A verification as a fact: what was looked at, how deep, and what came of it.

What belongs here: the fact `verification` of the estate-wide dataset, written and read. What stays out: when to verify.

No name of an object stands in the fact: a fact that spells one out claims that it was stored, and what was found may be
somebody's who laid it there. Damage is told by kinds and numbers; who wants names asks `dr-assets vault verify`.
"""

from collections import Counter
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final

from dr_assets.vault.believed import believed
from dr_assets.vault.facts import Fact, facts, latest_fact, record_fact
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.storage.bucket_settings import BucketSettings
from dr_assets.vault.vault import Receipt, Vault
from dr_assets.vault.verify.levels import Level
from dr_assets.vault.verify.report import VerifyReport

DATASET: Final = "vault"
VERIFICATION: Final = "verification"


@dataclass(frozen=True, slots=True)
class Verified:
    """One verification as it was recorded. `errors` and `notices` count findings by kind."""

    at: datetime
    level: Level
    dataset: str | None
    objects_total: int
    size_bytes: int
    read_bytes: int
    duration_ms: int
    errors: dict[str, int]
    notices: dict[str, int]
    settings: BucketSettings | None

    @property
    def ok(self) -> bool:
        """No errors."""
        return not self.errors


def record_verification(vault: Vault, report: VerifyReport, dataset: str | None = None) -> Receipt:
    """Seal what a report says. Raises what `record_fact` raises."""
    body: dict[str, Json] = {
        "level": report.level,
        "dataset": dataset,
        "objects_total": report.objects_total,
        "objects_locked": report.objects_locked,
        "size_bytes": report.size_bytes,
        "read_bytes": report.read_bytes,
        "plaintext_bytes": report.plaintext_bytes,
        "duration_ms": round(report.duration_s * 1000),
        "errors": dict(Counter(finding.kind for finding in report.errors)),
        "notices": dict(Counter(finding.kind for finding in report.notices)),
        "settings": None if report.settings is None else _settings_json(report.settings),
    }
    return record_fact(vault, DATASET, VERIFICATION, body)


def latest_verifications(vault: Vault, begin: datetime) -> dict[Level, Verified]:
    """The newest of each level since `begin`, of the whole estate. Raises what `facts` raises."""
    found: dict[Level, Verified] = {}
    for fact in facts(vault, DATASET, VERIFICATION, begin):
        verified = _verified(fact)
        if verified.dataset is None:
            found[verified.level] = verified
    return found


def settings_before(vault: Vault) -> BucketSettings | None:
    """The bucket's settings as the newest recorded verification saw them; None without one that can be believed."""
    newest = believed(lambda kind: latest_fact(vault, DATASET, kind), VERIFICATION)
    return None if newest is None else _verified(newest).settings


def _settings_json(settings: BucketSettings) -> dict[str, Json]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(settings).items()}


def _settings(raw: Json) -> BucketSettings | None:
    if not isinstance(raw, dict):
        return None
    lists = {name: tuple(map(str, value)) for name, value in raw.items() if isinstance(value, list)}
    known = {name: value for name, value in (raw | lists).items() if name in BucketSettings.__slots__}
    return BucketSettings(**known)  # type: ignore[arg-type]  # as `_settings_json` wrote it, and we signed it


def _verified(fact: Fact) -> Verified:
    """One of ours, in the form that `record_verification` gave it."""
    body = fact.body
    dataset = body.get("dataset")
    return Verified(
        at=fact.at,
        level=_level(body.get("level")),
        dataset=None if dataset is None else str(dataset),
        objects_total=_number(body.get("objects_total")),
        size_bytes=_number(body.get("size_bytes")),
        read_bytes=_number(body.get("read_bytes")),
        duration_ms=_number(body.get("duration_ms")),
        errors=_counts(body.get("errors")),
        notices=_counts(body.get("notices")),
        settings=_settings(body.get("settings")),
    )


def _level(value: Json) -> Level:
    return "index" if value == "index" else "sample" if value == "sample" else "full"


def _number(value: Json) -> int:
    return value if isinstance(value, int) else 0


def _counts(value: Json) -> dict[str, int]:
    return {kind: _number(count) for kind, count in value.items()} if isinstance(value, dict) else {}
