"""Trials of an attacker before a real store: after each, the vault opens as it was; all of them, verify names them.

What belongs here: one trial and what must hold, for the test and for scripts/adversary.py. What stays out: the attacks
(adversary.py) and starting a store.
"""

import hashlib
import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from dr_assets.engines.seaweed import Identity, SeaweedRegion
from dr_assets.vault.connect import utc_now
from dr_assets.vault.facts import latest_fact
from dr_assets.vault.roles.documents import document
from dr_assets.vault.roles.duties import DUTIES, Scope
from dr_assets.vault.storage.s3 import S3Store
from dr_assets.vault.throwaway import ThrowawayRetention
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify import Depth, VerifyReport, verify
from dr_assets_tests.faults.vault.adversary import ATTACKS, WHOLE_BUCKET, Must, Thief
from dr_assets_tests.faults.vault.sample import DATASET, Sample, build_sample

BUCKET: Final = "adversary"
WHOSE: Final = ("writer", "admin")
LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)
LOOKS: Final = 10  # attacks pile up: the vault is opened after so many, unless after each
FACTS: Final = ("capture", "snapshot", "drill", "inventory")
_RULES: Final = {DATASET: (ThrowawayRetention("compliance"), timedelta(days=1))}


def writer_identity() -> Identity:
    """The shipped policy of a writer, for all estates of the trials' bucket."""
    scope = Scope(BUCKET, "*", "800", "COMPLIANCE")
    latest = datetime.now(UTC) + timedelta(days=800)
    return Identity.throwaway("writer", document(DUTIES["writer"], scope, "seaweedfs", latest=latest))


@dataclass
class Ground:
    """One estate that is attacked: its vault, the moment before, and all that it held then."""

    sample: Sample
    estate: str
    moment: datetime = LONG_AGO
    before: dict[str, str] = field(default_factory=dict)

    @property
    def vault(self) -> Vault:
        """As a reader opens it anew: no key in memory."""
        return self.sample.vault.anew()


@dataclass
class Outcome:
    """Of all seeds of one attack with one set of keys."""

    attack: str
    whose: str
    trials: int = 0
    did: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Nothing lost, nothing of theirs used, nothing unnoticed."""
        return not self.wrong


class Trials:
    """All attacks in one bucket of one region; each attack has an estate of its own."""

    def __init__(self, region: SeaweedRegion, writer: Identity) -> None:
        once: Any = {"retries": {"total_max_attempts": 1}}
        self.admin: Any = region.client()
        self._clients: dict[str, Any] = {"admin": region.client(**once), "writer": region.client(writer, **once)}
        self.store = S3Store(self.admin, BUCKET)
        self.store.create_bucket("COMPLIANCE", 14)

    def grounds(self, attacks: list[str]) -> dict[str, Ground]:
        """Build them all, then let a second go by, so that what comes next is later by the store's clock."""
        with ThreadPoolExecutor(4) as pool:
            built = list(pool.map(self._build, range(len(attacks))))
        time.sleep(1.1)
        moment = self.store.now()
        for ground in built:
            ground.moment = moment
            ground.before = opened(ground.vault, moment)
        time.sleep(2.1)
        return dict(zip(attacks, built, strict=True))

    def run(self, attack: str, whose: str, ground: Ground, seeds: range, *, each: bool = False) -> Outcome:
        """Every seed: attack, open everything as of the moment before, verify.

        Attacks pile up, so that the vault is opened after some seeds, or after `each`. What changes the whole bucket is
        verified after each seed and then set right.
        """
        outcome = Outcome(attack, whose)
        musts: list[Must] = []
        for seed in seeds:
            client, chance = self._clients[whose], random.Random(f"{attack} {whose} {seed}")
            thief = Thief(client, BUCKET, ground.estate, ground.sample.sealed, chance)
            try:
                due = list(ATTACKS[attack](thief))
                musts += due
                if each or seed % LOOKS == LOOKS - 1:
                    outcome.wrong += [f"seed {seed}: {why}" for why in lost(ground)]
                if each or attack in WHOLE_BUCKET:
                    outcome.wrong += [f"seed {seed}: {why}" for why in unnoticed(judged(ground), due)]
            finally:
                for back in thief.undo:
                    back(self.admin)
            outcome.trials, outcome.did = outcome.trials + 1, outcome.did + thief.did
            outcome.refused += thief.refused
        report = judged(ground, Depth())
        lasting = [must for must in musts if not must.word]
        outcome.wrong += [*unnoticed(report, lasting), *damaged(report)]
        return outcome

    def _build(self, number: int) -> Ground:
        estate = f"casino{number:03d}"
        sample = build_sample(number, store=self.store, estate=estate, clock=utc_now, rules=_RULES)
        return Ground(sample, estate)


def opened(vault: Vault, moment: datetime) -> dict[str, str]:
    """What a restore as of the moment would use: every object's version, header and plaintext; the latest facts."""
    found: dict[str, str] = {}
    for obj in vault.objects(as_of=moment):
        content = vault.open(obj)
        digest = hashlib.sha256(content.plaintext).hexdigest()
        found[str(obj.key)] = f"{obj.version_id} {content.header.digest} {digest}"
    for kind in FACTS:
        fact = latest_fact(vault, DATASET, kind, as_of=moment)
        found[f"latest {kind}"] = "" if fact is None else f"{fact.key} {fact.header.digest}"
    return found


def lost(ground: Ground) -> Iterator[str]:
    """Whatever is not as it was."""
    now = opened(ground.vault, ground.moment)
    for name in sorted(now.keys() | ground.before.keys()):
        if now.get(name) != ground.before.get(name):
            yield f"{name} was {ground.before.get(name)}, is {now.get(name)}"


def judged(ground: Ground, depth: Depth | None = None) -> VerifyReport:
    """As of the moment before."""
    return verify(ground.vault, as_of=ground.moment, witness=ground.sample.witness, depth=depth or Depth("index"))


def unnoticed(report: VerifyReport, musts: list[Must]) -> Iterator[str]:
    """What of an attack no finding names."""
    for must in musts:
        named = [finding for finding in report.findings if finding.key == must.key and must.word in finding.detail]
        if not named:
            yield f"{must.key} {must.word} is not named"


def damaged(report: VerifyReport) -> Iterator[str]:
    """An error would say that something of the moment is lost: nothing is. The bucket was set right again."""
    kinds = Counter(finding.kind for finding in report.errors)
    if kinds:
        yield f"verify reports {dict(kinds)}: {report.errors[0]}"
