"""Refusals over the life of keys: how often they are rotated, and how people's keys are kept and forgotten.

What belongs here: the rules of `keys.rotate_every` and of `subjects`. What stays out: every other rule (rules.py).
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from dr_assets.estate.accepted import location_of
from dr_assets.estate.documents import Document
from dr_assets.estate.durations import parse_duration
from dr_assets.estate.findings import Finding
from dr_assets.estate.schema import EstateDeclaration, SubjectsDeclaration

ROTATE_AT_LEAST: Final = timedelta(days=366)
DAY: Final = timedelta(days=1)
# Erasure "without undue delay and in any event within one month": GDPR, articles 12(3) and 17.
LONGEST_GRACE: Final = timedelta(days=30)
REGIONS_MIN: Final = 2


def life_of_keys(document: Document, declared: EstateDeclaration) -> Iterator[Finding]:
    """What an estate may not ask for of its keys."""
    if not DAY <= parse_duration(declared.keys.rotate_every) <= ROTATE_AT_LEAST:
        reason = f"rotate_every {declared.keys.rotate_every}: data keys are rotated at most daily, at least yearly"
        yield document.finding("policy.rotation", reason, "keys", "rotate_every")
    if declared.subjects is not None:
        yield from _subjects(document, declared, declared.subjects)


def _subjects(document: Document, declared: EstateDeclaration, subjects: SubjectsDeclaration) -> Iterator[Finding]:
    if not DAY <= parse_duration(subjects.erasure_grace) <= LONGEST_GRACE:
        reason = f"erasure_grace {subjects.erasure_grace}: over 30 days is no erasure, under a day can't be undone"
        yield document.finding("policy.erasure_grace", reason, "subjects", "erasure_grace")
    domains: dict[tuple[str, str], str] = {}
    for index, name in enumerate(subjects.vaults):
        place = ("subjects", "vaults", index)
        vault = declared.vaults.get(name)
        if vault is None:
            reason = f"no vault `{name}`; the estate declares {', '.join(declared.vaults)}"
            yield document.finding("policy.vault", reason, *place)
            continue
        if vault.bucket == subjects.bucket:
            reason = f"bucket {subjects.bucket} is vault {name}'s own: people's keys must be deletable, it is locked"
            yield document.finding("policy.subjects_bucket", reason, "subjects", "bucket")
        domain = location_of(vault.location).failure_domain
        twin = domains.setdefault(domain, name)
        if twin != name:
            reason = f"{name} lies in {'/'.join(domain)}, the failure domain of {twin}"
            yield document.finding("policy.failure_domain", reason, *place)
    if len(domains) < REGIONS_MIN:
        reason = "people's keys need vaults in two failure domains: the loss of one would forget everybody"
        yield document.finding("policy.subjects_regions", reason, "subjects", "vaults")
