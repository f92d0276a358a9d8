"""What a prover knows and publishes, as values: recovery points, its last reconciliation, its last deep pass.

What belongs here: those values, and their form in the sealed fact `proven`. What stays out: how they come about
(sandbox.py, books.py, prover.py) and whether they are good enough (judged.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from dr_assets.proving.record import plain
from dr_assets.stores.postgres.lsn import format_lsn, parse_lsn
from dr_assets.vault.facts import latest_fact, record_fact
from dr_assets.vault.format.canonical import Json, parse_time
from dr_assets.vault.vault import Receipt, Vault

PROVEN: Final = "proven"
State = Literal["building", "following", "vault_away", "stalled", "failed", "stopped"]
Place = Literal["standby", "clone"]


@dataclass(frozen=True, slots=True)
class Point:
    """A recovery point. `at` is the newest heartbeat in the data, signature verified: all commits before it are there.

    Times are the source's clock. `last_commit_at` is the commit time of the last transaction that was replayed.
    """

    lsn: int
    timeline: int
    at: datetime | None
    last_commit_at: datetime | None

    def age_s(self, now: datetime) -> float | None:
        """How old it is."""
        return None if self.at is None else max(0.0, (now - self.at).total_seconds())


@dataclass(frozen=True, slots=True)
class Trouble:
    """What keeps the point from moving, as the error said it; `since` is when that began."""

    code: str
    found: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Books:
    """One reconciliation that came to an end at `end_at`; `point` is what it proves if `ok`.

    `reason` says what is wrong: breaks, or why it could not be done. `breaks_sha256` is the digest of the sealed file
    of breaks (reconciliation/sealed.py), None where there are none, or none could be sealed.
    """

    point: Point
    end_at: datetime
    ok: bool
    breaks_total: int
    reason: str
    place: Place
    duration_s: float
    breaks_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class DeepPass:
    """One deep pass: a promoted clone, every page, every index entry, the books."""

    point: Point
    end_at: datetime
    ok: bool
    reason: str
    checks: tuple[str, ...]
    duration_s: float


@dataclass(frozen=True, slots=True)
class Proven:
    """Where a prover stands at `now`. LSNs are byte positions.

    `replayed` is how far its server has replayed, `end_lsn` the end of the last complete record that it was given,
    `reconciled` the newest point at which the money added up; `books` is the newest reconciliation, also a failed one.
    `unbegun` is why the newest try to begin from a base backup failed, None since one did not.
    `restarts` counts beginnings from a base backup since the process began, `failures` what stopped the following.
    """

    dataset: str
    now: datetime
    state: State
    begin_at: datetime
    trouble: Trouble | None = None
    replayed: Point | None = None
    end_lsn: int = 0
    reconciled: Point | None = None
    books: Books | None = None
    deep: DeepPass | None = None
    base_key: str = ""
    restarted_at: datetime | None = None
    restarts: int = 0
    failures: int = 0
    size_bytes: int = 0
    unbegun: Trouble | None = None

    def __str__(self) -> str:
        """One line for logs."""
        told = [f"{self.dataset}: {self.state}", f"replayed {_told(self.replayed, self.now)}"]
        told.append(f"reconciled {_told(self.reconciled, self.now)}")
        if self.trouble is not None:
            told.append(f"{self.trouble.code}: {self.trouble.found}")
        return ", ".join(told)


def record_proven(vault: Vault, proven: Proven, event: str) -> Receipt:
    """Seal the fact; `event` is why now. Raises VaultError."""
    body = {
        "event": event,
        "state": proven.state,
        "begin_at": proven.begin_at,
        "trouble": None if proven.trouble is None else _fields(proven.trouble),
        "replayed": _point(proven.replayed),
        "end_lsn": format_lsn(proven.end_lsn),
        "reconciled": _point(proven.reconciled),
        "books": _with_point(proven.books),
        "deep": _with_point(proven.deep),
        "base_backup": proven.base_key,
        "restarted_at": proven.restarted_at,
        "restarts": proven.restarts,
        "failures": proven.failures,
        "size_bytes": proven.size_bytes,
        "unbegun": None if proven.unbegun is None else _fields(proven.unbegun),
    }
    return record_fact(vault, proven.dataset, PROVEN, plain(body))


def latest_proven(vault: Vault, dataset: str) -> Proven | None:
    """What a prover of the dataset sealed last, None if there never was one. Raises VaultError."""
    fact = latest_fact(vault, dataset, PROVEN)
    if fact is None:
        return None
    body: dict[str, Any] = dict(fact.body)
    books, deep = body.get("books"), body.get("deep")
    return Proven(
        dataset=dataset,
        now=fact.at,
        state=body["state"],
        begin_at=_time(body["begin_at"]),
        trouble=_trouble_of(body.get("trouble")),
        replayed=_point_of(body.get("replayed")),
        end_lsn=parse_lsn(str(body["end_lsn"])),
        reconciled=_point_of(body.get("reconciled")),
        books=None if not books else _books_of(books),
        deep=None if not deep else _deep_of(deep),
        base_key=str(body["base_backup"]),
        restarted_at=None if body.get("restarted_at") is None else _time(body["restarted_at"]),
        restarts=int(body["restarts"]),
        failures=int(body["failures"]),
        size_bytes=int(body["size_bytes"]),
        unbegun=_trouble_of(body.get("unbegun")),
    )


def _told(point: Point | None, now: datetime) -> str:
    if point is None:
        return "nothing yet"
    age_s = point.age_s(now)
    return f"{format_lsn(point.lsn)} ({'undated' if age_s is None else f'{age_s:.1f} s old'})"


def _point(point: Point | None) -> Mapping[str, object] | None:
    if point is None:
        return None
    return {
        "lsn": format_lsn(point.lsn),
        "timeline": point.timeline,
        "at": point.at,
        "last_commit_at": point.last_commit_at,
    }


def _fields(value: Trouble | Books | DeepPass) -> dict[str, object]:
    return {name: getattr(value, name) for name in value.__slots__ if name != "point"}


def _with_point(value: Books | DeepPass | None) -> dict[str, object] | None:
    return None if value is None else {**_fields(value), "point": _point(value.point)}


def _trouble_of(body: Mapping[str, Any] | None) -> Trouble | None:
    return None if not body else Trouble(str(body["code"]), str(body["found"]), _time(body["since"]))


def _point_of(body: Mapping[str, Any] | None) -> Point | None:
    if not body:
        return None
    at, commit_at = body.get("at"), body.get("last_commit_at")
    return Point(
        parse_lsn(str(body["lsn"])), int(body["timeline"]), None if at is None else _time(at),
        None if commit_at is None else _time(commit_at),
    )  # fmt: skip


def _books_of(body: Mapping[str, Any]) -> Books:
    point = _point_of(body["point"])
    assert point is not None  # noqa: S101 - for the type checker: sealed with one
    return Books(
        point, _time(body["end_at"]), bool(body["ok"]), int(body["breaks_total"]), str(body["reason"]), body["place"],
        _seconds(body["duration_s"]), body.get("breaks_sha256"),
    )  # fmt: skip


def _deep_of(body: Mapping[str, Any]) -> DeepPass:
    point = _point_of(body["point"])
    assert point is not None  # noqa: S101 - for the type checker: sealed with one
    checks = tuple(str(each) for each in body["checks"])
    return DeepPass(
        point, _time(body["end_at"]), bool(body["ok"]), str(body["reason"]), checks, _seconds(body["duration_s"])
    )


def _seconds(value: Json) -> float:
    return float(str(value))


def _time(text: str) -> datetime:
    return parse_time(text, "a fact `proven`")
