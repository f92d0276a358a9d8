"""Read-back sampling: each stored object is read again, whole, at least once in a declared time.

What belongs here: which objects are due in which round, reading them, the fact, and whether nothing was left out. What
stays out: what is wrong with an object (verify/examine.py), when to run (components/, cli/).

Time is cut into rounds of `every`, counted from 1970; `whole_in` holds `rounds` of them. The digest in an object's name
says which round of each cycle it is read in, so a run reads about 1/rounds of the vault, anybody can tell from names
alone what a run had to read, and any `rounds` rounds in a row have read everything that was there throughout. A run
makes up for rounds that were missed, up to a whole cycle: then it reads the whole vault once, and never more.
"""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from dr_assets.estate.model import Sampling
from dr_assets.vault.facts import facts, latest_fact, record_fact
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.format.keys import ObjectKey, prefix_of
from dr_assets.vault.retention.thawing import is_frozen
from dr_assets.vault.storage.versions import Name
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify.examine import Examined, examine
from dr_assets.vault.verify.report import Finding

SAMPLING: Final = "sampling"
WORKERS: Final = 4  # each holds one object
FINDINGS_LIMIT: Final = 100

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND: Final = timedelta(seconds=1)


def rounds_in(policy: Sampling) -> int:
    """How many rounds read everything once."""
    return max(1, -(-policy.whole_in // policy.every))


def round_at(policy: Sampling, at: datetime) -> int:
    """The round that a moment lies in, counted from 1970."""
    return (at - _EPOCH) // policy.every


def slot_of(key: ObjectKey, rounds: int) -> int:
    """In which round of a cycle an object is read: by the digest of its bytes, which nobody chooses."""
    return int(key.digest, 16) % rounds


@dataclass(slots=True)
class Sampled:
    """What one run read. `first_round` to `last_round` are the rounds it stands for, both included.

    `cold` objects were only asked for their lock: nobody reads them without a thaw. `names_sha256` is over the names
    that were due, sorted, each with a line feed behind it.
    """

    dataset: str
    first_round: int
    last_round: int
    rounds: int
    every_s: int
    objects: int = 0
    size_bytes: int = 0
    cold: int = 0
    listed: int = 0
    names_sha256: str = ""
    duration_s: float = 0.0
    findings: list[Finding] = field(default_factory=list)

    @property
    def errors(self) -> list[Finding]:
        """What is damaged, gone or unlocked."""
        return [finding for finding in self.findings if finding.severity == "error"]

    def to_json(self) -> dict[str, Json]:
        """For machines, and as the fact's body.

        A damaged object's name is given in two parts, place and rest: whole, it would be a claim that it was stored.
        """
        told: list[Json] = [
            {"kind": one.kind, "place": place + "/", "name": name, "detail": one.detail}
            for one in self.errors[:FINDINGS_LIMIT]
            for place, _, name in [one.key.rpartition("/")]
        ]
        return {
            "first_round": self.first_round,
            "last_round": self.last_round,
            "rounds": self.rounds,
            "every_s": self.every_s,
            "objects": self.objects,
            "listed": self.listed,
            "cold": self.cold,
            "size_bytes": self.size_bytes,
            "names_sha256": self.names_sha256,
            "errors_total": len(self.errors),
            "errors": told,
            "duration_ms": int(self.duration_s * 1000),
        }


def is_due(vault: Vault, dataset: str, policy: Sampling) -> bool:
    """Whether the round of now was not read yet."""
    last = _last_round(vault, dataset, policy)
    return last is None or last < round_at(policy, vault.clock())


def sample(vault: Vault, dataset: str, policy: Sampling, *, progress: Callable[[int], None] | None = None) -> Sampled:
    """Read what is due of a dataset, and record it. Raises VaultError when the store can't be read.

    Digest, signature, lock and plaintext of each object are judged as a full verification does. A run that was killed
    recorded nothing, so the next one reads the same again. `progress` is told how many were read.
    """
    begin_s = time.monotonic()
    done = _due(vault, dataset, policy)
    names: list[str] = []
    for item in _examined(vault, _chosen(vault, dataset, done), done):
        names.append(item.name)
        done.objects += 1
        done.size_bytes += item.size_bytes
        done.findings += item.findings
        if progress is not None:
            progress(done.objects)
    done.names_sha256 = hashlib.sha256("".join(f"{name}\n" for name in sorted(names)).encode("ascii")).hexdigest()
    done.duration_s = time.monotonic() - begin_s
    record_fact(vault, dataset, SAMPLING, done.to_json())
    return done


def plan_sample(vault: Vault, dataset: str, policy: Sampling) -> Sampled:
    """What a run would read now: objects and bytes, by listing alone."""
    done = _due(vault, dataset, policy)
    for name in _chosen(vault, dataset, done):
        done.objects += 1
        done.size_bytes += name.versions[0].size_bytes if name.versions else 0
    return done


@dataclass(frozen=True, slots=True)
class Coverage:
    """What the facts of the last cycle prove. `missed` are rounds of it that no run stands for.

    `errors` are the damaged objects that the newest run of each round told of, by name.
    """

    rounds: int
    newest_at: datetime | None
    overdue_since: datetime | None
    missed: int
    is_whole: bool
    objects: int
    size_bytes: int
    errors: tuple[str, ...]


def coverage(vault: Vault, dataset: str, policy: Sampling) -> Coverage:
    """Whether everything was read in time, from the facts alone. Raises VaultError.

    Within the first cycle, or the first after the policy changed, only the rounds since its first run are asked for.
    """
    now, rounds = vault.clock(), rounds_in(policy)
    current = round_at(policy, now)
    runs = [fact for fact in facts(vault, dataset, SAMPLING, now - 2 * policy.whole_in) if _fits(fact.body, policy)]
    covered: set[int] = set()
    errors: dict[int, list[str]] = {}
    objects = size_bytes = 0
    for fact in runs:
        first, last = int(str(fact.body["first_round"])), int(str(fact.body["last_round"]))
        covered |= set(range(first, last + 1))
        objects, size_bytes = objects + int(str(fact.body["objects"])), size_bytes + int(str(fact.body["size_bytes"]))
        told = _names_of(fact.body)
        again = {at % rounds for at in range(first, last + 1)}
        errors = {slot: names for slot, names in errors.items() if slot not in again}
        if told:
            errors[last % rounds] = told
    if not runs:
        return Coverage(rounds, None, now, 0, is_whole=False, objects=0, size_bytes=0, errors=())
    begun = int(str(runs[0].body["first_round"]))
    wanted = range(max(begun, current - rounds), current)  # the round of now may still be read
    missed = [at for at in wanted if at not in covered]
    overdue = None if max(covered) >= current - 1 else _EPOCH + (max(covered) + 2) * policy.every
    return Coverage(
        rounds, runs[-1].at, overdue, len(missed), current - begun >= rounds and not missed, objects, size_bytes,
        tuple(dict.fromkeys(name for names in errors.values() for name in names)),
    )  # fmt: skip


def _fits(body: Mapping[str, Json], policy: Sampling) -> bool:
    """Whether a run was made by this policy: rounds of another length don't compare."""
    return body.get("rounds") == rounds_in(policy) and body.get("every_s") == policy.every // _SECOND


def _names_of(body: Mapping[str, Json]) -> list[str]:
    rows = body.get("errors")
    listed = rows if isinstance(rows, list) else []
    return [f"{row.get('kind')} {row.get('place')}{row.get('name')}" for row in listed if isinstance(row, dict)]


def _due(vault: Vault, dataset: str, policy: Sampling) -> Sampled:
    rounds, current = rounds_in(policy), round_at(policy, vault.clock())
    last = _last_round(vault, dataset, policy)
    first = current if last is None else max(last + 1, current - rounds + 1)
    return Sampled(dataset, min(first, current), current, rounds, policy.every // _SECOND)


def _last_round(vault: Vault, dataset: str, policy: Sampling) -> int | None:
    newest = latest_fact(vault, dataset, SAMPLING)
    if newest is None or not _fits(newest.body, policy):
        return None
    return int(str(newest.body["last_round"]))


def _chosen(vault: Vault, dataset: str, done: Sampled) -> Iterator[Name]:
    """Names of ours whose turn it is, delete markers without a version included: they hide what was there."""
    slots = {at % done.rounds for at in range(done.first_round, done.last_round + 1)}
    for name in vault.names(prefix_of(vault.estate, dataset)):
        if name.key is None:
            continue
        done.listed += 1
        if slot_of(name.key, done.rounds) in slots:
            yield name


def _examined(vault: Vault, names: Iterator[Name], done: Sampled) -> Iterator[Examined]:
    """In order; only a few are in memory."""
    now = vault.clock()
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="sample") as pool:
        ahead: deque[Future[Examined]] = deque()
        for name in names:
            if is_frozen(vault, name):  # its lock is judged with all others (lock_check.py)
                done.cold += 1
                continue
            ahead.append(pool.submit(examine, vault, name, now))
            if len(ahead) > 2 * WORKERS:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
