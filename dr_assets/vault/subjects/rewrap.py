"""Wrapping people's keys anew: by today's key-encryption keys, in every region, and the old wrappings removed.

What belongs here: finding what is wrapped by others than today's, and the order of the steps. What stays out: data keys
of datasets, whose old wrappings are locked and stay (keys/life/rotation.py).

A person's record lies in a mutable store, so its old wrapping can go: a key-encryption key that was stolen opens no
person's key once this is through and the ring's backups of that day have run out (docs/keys.md, People's keys). First
the new record on top in every region, read back; then each provider opens it; then what lay beneath goes. Killed
anywhere, the key opens by the old record or the new one, and the next run completes it.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.vault.keys.age_provider import AgeProvider
from dr_assets.vault.keys.provider import KeyProvider
from dr_assets.vault.subjects.backup import decided_people, is_ours
from dr_assets.vault.subjects.history import record
from dr_assets.vault.subjects.records import key_name, subject_of
from dr_assets.vault.subjects.ring import SubjectRing

WORKERS: Final = 8
NAMED_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """How many people's keys there are, whose were wrapped anew now, and the key-encryption keys that wrap them all."""

    people: int
    anew: tuple[str, ...]
    kek_ids: tuple[str, ...]


def rewrap(ring: SubjectRing) -> Rewrapped:
    """See that every live person's key is wrapped by exactly the declared providers' current key-encryption keys.

    Those who are deleted, softly too, are left as they are: nothing is written for them any more. Raises PolicyError
    `keys.kek_retired`, `vault.read_only`; VaultError `subjects.diverged`, `keys.unreachable`, those of a region that is
    away. What was wrapped anew by then stays so and is on record.
    """
    ring.signer()
    ring.require_usable_keks()
    wanted = _wanted(ring)
    decided = decided_people(ring, ring.vault.clock())
    people = [who for who in _people(ring) if who not in decided]
    done: list[str] = []
    try:
        with ThreadPoolExecutor(WORKERS) as pool:
            for who, anew in zip(people, pool.map(lambda who: _rewrap(ring, who, wanted), people), strict=True):
                if anew:
                    done.append(who)
    finally:
        if done:
            keks = sorted(kek_id for _, kek_id in wanted)
            record(ring.vault, "rewrapped", done[:NAMED_MAX], people=len(done), kek_ids=list(keks))
    return Rewrapped(len(people), tuple(done), tuple(sorted(kek_id for _, kek_id in wanted)))


def people_under(ring: SubjectRing, kek_id: str) -> tuple[str, ...]:
    """Whose key this key-encryption key opens in any region, in any version that is still there: live or deleted."""
    found = (who for who in _people(ring) if any(kek_id in _keks_of(ring, who, data) for data in _records(ring, who)))
    return tuple(found)


def outdated(ring: SubjectRing) -> tuple[str, ...]:
    """Whose key is wrapped by other key-encryption keys than today's, or lacks one of them."""
    wanted, decided = _wanted(ring), decided_people(ring, ring.vault.clock())
    return tuple(who for who in _people(ring) if who not in decided and not _is_right(ring, who, wanted))


def _is_offline(provider: KeyProvider) -> bool:
    return isinstance(provider, AgeProvider) and not provider.opens


def _wanted(ring: SubjectRing) -> frozenset[tuple[str, str]]:
    return frozenset((provider.name, provider.kek_id) for provider in ring.providers)


def _people(ring: SubjectRing) -> list[str]:
    found: set[str] = set()
    for shelf in ring.shelves:
        for name in shelf.names(f"{ring.estate}/"):
            subject = subject_of(name)
            if subject is not None and subject[1] == "key":
                found.add(subject[0])
    return sorted(found)


def _records(ring: SubjectRing, who: str) -> Iterator[bytes]:
    name = key_name(ring.estate, who)
    for shelf in ring.shelves:
        yield from shelf.versions(name)


def _keks_of(ring: SubjectRing, who: str, data: bytes) -> frozenset[str]:
    if not is_ours(ring, who, data):
        return frozenset()
    return frozenset(wrapping.kek_id for _, wrapping in ring.parsed(who, data).wrappings)


def _is_right(ring: SubjectRing, who: str, wanted: frozenset[tuple[str, str]]) -> bool:
    """Whether each region holds one version, of ours, wrapped by exactly these."""
    name = key_name(ring.estate, who)
    for shelf in ring.shelves:
        held = shelf.versions(name)
        if len(held) != 1 or not is_ours(ring, who, held[0]):
            return False
        if {(provider, wrapping.kek_id) for provider, wrapping in ring.parsed(who, held[0]).wrappings} != wanted:
            return False
    return True


def _rewrap(ring: SubjectRing, who: str, wanted: frozenset[tuple[str, str]]) -> bool:
    """Whether there was anything to do for this person."""
    if _is_right(ring, who, wanted):
        return False
    name = key_name(ring.estate, who)
    key = ring.key_for_sealing(who)  # raises where regions disagree; completes one that lacks
    current = next(data for shelf in ring.shelves if (data := shelf.get(name)) is not None)
    person = ring.parsed(who, current)
    if {(provider, wrapping.kek_id) for provider, wrapping in person.wrappings} != wanted:
        wrappings = ring.wrapped(key, person.context())
        person = replace(person, wrappings=wrappings, signer_id=ring.signer().signer_id)
        for provider, (_, wrapping) in zip(ring.providers, wrappings, strict=True):
            if not _is_offline(provider) and provider.unwrap(wrapping, person.context()) != key.secret:
                raise VaultError("vault.not_stored", f"{provider.name} does not open what it wrapped", "don't trust it")
        current = person.sealed(ring.signer())
    for shelf in ring.shelves:
        if shelf.get(name) != current:
            shelf.replace(name, current)
        if shelf.get(name) != current:
            raise VaultError(
                "subjects.not_stored",
                f"the key of {who} does not read back from {shelf.region}",
                "its old wrapping is still there; try again, and don't trust a store where this stays",
            )
    for shelf in ring.shelves:
        shelf.trim(name)
    return True
