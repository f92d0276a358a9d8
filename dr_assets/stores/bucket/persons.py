"""Whose document it is, and that person's key for sealing or opening it.

What belongs here: the declared rule, and a short memory of keys. What stays out: the ring itself and erasure
(vault/subjects).

A key is remembered for a minute at most: a copy of a hundred thousand documents can't ask two regions for each of them,
and an erasure must hold soon. What was sealed in that minute is under the erased key, so nobody opens it either.
"""

import math
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.estate.model import SubjectRule
from dr_assets.vault.keys.derive import DataKey
from dr_assets.vault.subjects.ids import SubjectIds

REMEMBERED_S: Final = 60.0
REMEMBERED_KEYS: Final = 4096
_STRIPES: Final = 64
_DELETED: Final = frozenset({"subjects.deleted", "subjects.erased"})


class Ring(Protocol):
    """What of the ring of people's keys is needed here; threads may share it."""

    def key_for_sealing(self, subject_id: str) -> DataKey:
        """The person's key, made if there is none. Raises PolicyError `subjects.deleted` for one who was erased."""
        ...

    def key_of(self, subject_id: str) -> DataKey:
        """The person's key for opening. Raises PolicyError `subjects.deleted`, VaultError `subjects.no_key`."""
        ...

    def is_erased(self, subject_id: str) -> bool:
        """Whether that key is destroyed, or about to be, on record."""
        ...


@dataclass(frozen=True, slots=True)
class Whose:
    """The declared rule. It finds nobody for a document that doesn't fit it: such a one is sealed as nobody's."""

    rule: SubjectRule
    ids: SubjectIds | None

    def __post_init__(self) -> None:
        if self.rule.kind != "none" and self.ids is None:
            raise PolicyError(
                "bucket.no_subjects",
                "documents belong to people here, and there is no key of subject ids to name them by",
                "declare `subjects: {vaults: […], bucket: …, id_key_env: …}` (docs/keys.md)",
            )

    @property
    def wants_tags(self) -> bool:
        """Whether nobody can tell whose a document is before its tags were asked for."""
        return self.rule.kind == "tag"

    @property
    def is_by_name(self) -> bool:
        """Whether the name alone tells, so that a delete marker does as well."""
        return self.rule.kind == "key"

    def of(self, name: str, tags: Mapping[str, str], metadata: Mapping[str, str]) -> str | None:
        """The subject id; None for nobody's."""
        rule, found = self.rule, None
        if rule.kind == "key" and rule.pattern is not None:
            matched = re.search(rule.pattern, name)
            found = matched["subject"] if matched else None
        elif rule.kind == "tag" and rule.name is not None:
            found = tags.get(rule.name)
        elif rule.kind == "metadata" and rule.name is not None:
            found = metadata.get(rule.name.lower())  # S3 keeps these names in lower case
        return self.ids.of(found) if found and self.ids is not None else None


@dataclass(slots=True)
class Keys:
    """People's keys by subject id, each asked for once a minute. `ring` is None where no document is anybody's."""

    ring: Ring | None
    is_sealing: bool
    _known: "OrderedDict[str, tuple[float, DataKey | None]]" = field(default_factory=OrderedDict)
    _mutex: threading.Lock = field(default_factory=threading.Lock)
    _asking: tuple[threading.Lock, ...] = field(
        default_factory=lambda: tuple(threading.Lock() for _ in range(_STRIPES))
    )

    def of(self, subject_id: str) -> DataKey | None:
        """The person's key; None for a person who is erased.

        Raises what the ring raises: among others VaultError `subjects.no_key` for a key that is lost without anybody
        having decided so.
        """
        with self._asking[hash(subject_id) % len(self._asking)]:  # of two threads with one person, one asks
            now_s = time.monotonic()
            with self._mutex:
                at_s, key = self._known.get(subject_id, (-math.inf, None))
                if now_s - at_s < REMEMBERED_S:
                    self._known.move_to_end(subject_id)
                    return key
            key = self._ask(subject_id)
            with self._mutex:
                self._known[subject_id] = (now_s, key)
                while len(self._known) > REMEMBERED_KEYS:
                    self._known.popitem(last=False)
            return key

    def _ask(self, subject_id: str) -> DataKey | None:
        ring = self.ring
        if ring is None:
            raise PolicyError(
                "bucket.no_ring",
                "documents belong to people here, and the ring of their keys is not at hand",
                "open it with the estate's settings; an air-gapped bundle carries no keys of people",
            )
        try:
            return ring.key_for_sealing(subject_id) if self.is_sealing else ring.key_of(subject_id)
        except PolicyError as refusal:
            if refusal.code not in _DELETED:
                raise
        except VaultError as refusal:
            if refusal.code != "subjects.no_key" or not ring.is_erased(subject_id):
                raise
        return None
