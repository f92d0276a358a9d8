"""Everything that speaks against erasing these people now: duties to keep, holds on them, holds on their documents.

What belongs here: asking all of it, from the estate and the environment. What stays out: each rule (vault/erasure/).
"""

from collections.abc import Mapping, Sequence

from dr_assets.estate.model import BucketDataset, Estate
from dr_assets.proving.relationships import relationships
from dr_assets.vault.connect import open_vault
from dr_assets.vault.erasure.holds import in_force, opposed_by_hold, opposed_by_legal_hold
from dr_assets.vault.erasure.law import Opposition, Relationship, duties, opposed_by_duty
from dr_assets.vault.subjects.connect import subject_ids
from dr_assets.vault.subjects.ring import SubjectRing
from dr_assets.vault.vault import Vault


def weigh(
    estate: Estate, ring: SubjectRing, people: Sequence[str], env: Mapping[str, str]
) -> tuple[dict[str, Relationship], list[Opposition]]:
    """What is known of each one's relationship, and every rule that opposes, by the clock of the ring's vault.

    Raises as `relationships` does, and VaultError where a vault with people's documents doesn't answer: a hold in it
    would oppose.
    """
    now, regimes = ring.vault.clock(), duties(estate.datasets.values())
    known = relationships(estate, subject_ids(estate, env), frozenset(people), env) if regimes else {}
    found = opposed_by_duty(regimes, people, known, now)
    found += opposed_by_hold(in_force(ring.vault, now), people)
    found += opposed_by_legal_hold(_with_documents(estate, ring, env), people)
    return known, found


def _with_documents(estate: Estate, ring: SubjectRing, env: Mapping[str, str]) -> dict[str, Vault]:
    opened = {vault.name: vault for vault in ring.vaults}
    return {
        name: opened.get(dataset.vault) or open_vault(estate, dataset.vault, env, signing=False, role="reader")
        for name, dataset in estate.datasets.items()
        if isinstance(dataset, BucketDataset) and dataset.subject.kind != "none"
    }
