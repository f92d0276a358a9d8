"""The ring of people's keys: made once, in two regions before their first use, opened while nobody deleted them.

What belongs here: making and opening. What stays out: deletion (deletion.py) and backups (backup.py).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from dr_assets.estate.errors import DrError, PolicyError, VaultError
from dr_assets.vault.keys.derive import KEY_BYTES, DataKey
from dr_assets.vault.keys.opener import weightiest
from dr_assets.vault.keys.provider import KeyProvider, WrapContext, Wrapping
from dr_assets.vault.keys.refusals import retired
from dr_assets.vault.signing import Signer
from dr_assets.vault.storage import STORE_AWAY
from dr_assets.vault.subjects.history import Decisions, SoftDeletion
from dr_assets.vault.subjects.ids import require_subject_id
from dr_assets.vault.subjects.policy import ErasurePolicy
from dr_assets.vault.subjects.records import (
    Deletion,
    PersonKey,
    context_of,
    deletion_name,
    key_name,
    parse_deletion,
    parse_person_key,
)
from dr_assets.vault.subjects.shelf import Shelf
from dr_assets.vault.vault import Vault

REGIONS_MIN: Final = 2


@dataclass(frozen=True, slots=True)
class SubjectRing:
    """All people's keys of an estate; threads may share it. No key is remembered: a deletion holds from the next call.

    `vaults` take the backups, and the first of them the facts; `shelves` hold the keys, one in each region. Beside the
    marks in the shelves, which hold at once, the vaults' facts are asked, at most half a minute old: a shelf that was
    put back from a copy has the key again and no mark.
    """

    vaults: tuple[Vault, ...]
    shelves: tuple[Shelf, ...]
    providers: tuple[KeyProvider, ...]
    policy: ErasurePolicy
    decisions: Decisions = field(default_factory=Decisions, compare=False, repr=False)

    def __post_init__(self) -> None:
        if len({shelf.region for shelf in self.shelves}) < REGIONS_MIN:
            raise PolicyError(
                "subjects.one_region",
                f"people's keys are to lie in {len(self.shelves)} region(s); one region's loss would forget everybody",
                "declare two vaults under `subjects: {vaults: […]}`",
            )

    @property
    def vault(self) -> Vault:
        """Where facts are recorded."""
        return self.vaults[0]

    @property
    def estate(self) -> str:
        """The estate's name."""
        return self.vault.estate

    def is_erased(self, subject_id: str) -> bool:
        """Whether somebody decided to delete the person's key, softly or for good: its absence is no damage then.

        Raises VaultError when no vault says.
        """
        return self.decisions.of(self.vaults).decision_on(subject_id) is not None

    def key_for_sealing(self, subject_id: str) -> DataKey:
        """The person's key, made if there is none; read back from every region before it is handed out.

        Raises PolicyError `subjects.deleted`, `vault.read_only`; VaultError `subjects.vanished`, `subjects.diverged`,
        `subjects.not_stored`, and those of a region that is away: without it nothing new is sealed for a person.
        """
        require_subject_id(subject_id)
        self._require_live(subject_id, self.shelves)
        self._require_undecided(subject_id)
        held = self._held(subject_id)
        data = next((found for found in held if found is not None), None)
        if data is None:
            data = self._make(subject_id)
        self._settle(subject_id, data, held)
        return self.unwrapped(self.parsed(subject_id, data))

    def key_of(self, subject_id: str) -> DataKey:
        """The person's key for opening, from whichever region answers.

        Raises PolicyError `subjects.deleted` when any region that answers says so; VaultError `subjects.no_key`.
        """
        require_subject_id(subject_id)
        self._require_undecided(subject_id)
        found: list[bytes | None] = []
        away: list[VaultError] = []
        for shelf in self.shelves:
            try:
                self._require_live(subject_id, (shelf,))
                found.append(shelf.get(key_name(self.estate, subject_id)))
            except VaultError as error:
                if error.code not in STORE_AWAY:
                    raise
                away.append(error)
        held = list(dict.fromkeys(data for data in found if data is not None))
        if not held:
            raise away[0] if away else no_key(subject_id)
        return self.opened(subject_id, held)

    def opened(self, subject_id: str, held: Sequence[bytes]) -> DataKey:
        """The key out of the first record that one of ours signed and that opens.

        Rubbish in one region must not keep the other's from being read, nor must a record that was not wrapped anew.
        """
        refusals: list[DrError] = []
        for data in held:
            try:
                return self.unwrapped(self.parsed(subject_id, data))
            except DrError as refusal:
                refusals.append(refusal)
        raise weightiest(refusals)

    def _require_undecided(self, subject_id: str) -> None:
        decision = self.decisions.of(self.vaults).decision_on(subject_id)
        if decision is not None:
            raise _deleted(subject_id, decision)

    def _require_live(self, subject_id: str, shelves: Sequence[Shelf]) -> None:
        for shelf in shelves:
            mark = shelf.get(deletion_name(self.estate, subject_id))
            if mark is None:
                continue
            deletion = parse_deletion(mark, estate=self.estate, subject_id=subject_id, trust=self.vault.trust)
            raise _deleted(subject_id, deletion)

    def _held(self, subject_id: str) -> list[bytes | None]:
        """What each region has; raises VaultError `subjects.diverged` where that isn't one key.

        Records that differ in their wrappings alone are one key: it is being wrapped anew (rewrap.py).
        """
        name = key_name(self.estate, subject_id)
        held = [shelf.get(name) for shelf in self.shelves]
        if not self._is_one_key(subject_id, {data for data in held if data is not None}):
            raise VaultError(
                "subjects.diverged",
                f"the regions hold different keys of {subject_id}",
                "somebody wrote to one region alone; `dr-assets keys subjects verify` shows where",
            )
        hidden = [shelf.region for shelf in self.shelves if shelf.versions(name)] if not any(held) else []
        if hidden and any(shelf.get(name) for shelf in self.shelves):
            return self._held(subject_id)  # somebody else is making it at this moment
        if hidden:
            raise VaultError(
                "subjects.vanished",
                f"the key of {subject_id} is hidden by a delete marker in {', '.join(hidden)}; no deletion says why",
                "somebody deleted past the approvals; `dr-assets keys subjects recover` lays it back from the backup",
            )
        return held

    def _is_one_key(self, subject_id: str, records: set[bytes]) -> bool:
        if len(records) <= 1:
            return True
        try:
            return len({self.parsed(subject_id, data).key_id for data in records}) == 1
        except VaultError:
            return False

    def _make(self, subject_id: str) -> bytes:
        """A new key, at the first region; what another process was first with, if there is one."""
        signer = self.signer()
        self.require_usable_keks()
        data_key = DataKey.of(os.urandom(KEY_BYTES))
        context = context_of(self.estate, subject_id, data_key.key_id)
        person = PersonKey(
            self.estate,
            subject_id,
            data_key.key_id,
            self.vault.clock(),
            self.wrapped(data_key, context),
            signer.signer_id,
        )
        data, name, first = person.sealed(signer), key_name(self.estate, subject_id), self.shelves[0]
        if first.put_new(name, data):
            return data
        return first.get(name) or data

    def require_usable_keks(self) -> None:
        """Raise PolicyError `keys.kek_retired` where a provider would wrap with a key that may have been stolen."""
        retired_keks = frozenset[str]() if self.vault.keys.choice is None else self.vault.keys.choice.retired_keks()
        for provider in self.providers:
            if provider.kek_id in retired_keks:
                raise retired(provider.name, provider.kek_id)

    def wrapped(self, data_key: DataKey, context: WrapContext) -> tuple[tuple[str, Wrapping], ...]:
        """The key, wrapped by every provider; raises what these raise."""
        return tuple((provider.name, provider.wrap(data_key.secret, context)) for provider in self.providers)

    def _settle(self, subject_id: str, data: bytes, held: Sequence[bytes | None]) -> None:
        """See that every region has this key; where one lacked, these bytes."""
        name = key_name(self.estate, subject_id)
        for shelf, there in zip(self.shelves, held, strict=True):
            if there is not None:
                continue
            shelf.put_new(name, data)
            found = shelf.get(name)
            if found is None or not self._is_one_key(subject_id, {found, data}):
                raise VaultError(
                    "subjects.not_stored",
                    f"the key of {subject_id} does not read back from {shelf.region}",
                    "nothing was sealed under it; try again, and don't trust a store where this stays",
                )

    def signer(self) -> Signer:
        """Who signs records; raises PolicyError `vault.read_only`."""
        if self.vault.signer is None:
            raise PolicyError("vault.read_only", "opened without a signing key", "open it with signing=True")
        return self.vault.signer

    def parsed(self, subject_id: str, data: bytes) -> PersonKey:
        """A record of this person's, as one of ours signed it; raises as `parse_person_key`."""
        return parse_person_key(data, estate=self.estate, subject_id=subject_id, trust=self.vault.trust)

    def unwrapped(self, person: PersonKey) -> DataKey:
        """The key, by whichever provider lives and lets us; raises the refusal that tells most."""
        refusals: list[DrError] = []
        for provider in self.providers:
            for name, wrapping in person.wrappings:
                if name != provider.name:
                    continue
                try:
                    data_key = DataKey.of(provider.unwrap(wrapping, person.context()))
                except DrError as refusal:
                    refusals.append(refusal)
                    continue
                if data_key.key_id == person.key_id:
                    return data_key
        if refusals:
            raise weightiest(refusals)
        raise VaultError(
            "vault.wrong_key",
            f"no provider at hand opens the key of {person.subject_id}",
            f"it is wrapped by {', '.join(name for name, _ in person.wrappings)}",
        )


def _deleted(subject_id: str, deletion: Deletion | SoftDeletion) -> PolicyError:
    return PolicyError(
        "subjects.deleted",
        f"the key of {subject_id} was deleted {deletion.deleted_at:%Y-%m-%d %H:%M}Z"
        f" (approval {deletion.approval}), for good after {deletion.final_after:%Y-%m-%d %H:%M}Z",
        "until then `dr-assets keys subjects restore` brings it back; afterwards nothing does",
    )


def no_key(subject_id: str) -> VaultError:
    """The person has no key in any region that answers."""
    return VaultError(
        "subjects.no_key",
        f"no region holds a key of {subject_id}",
        "an erased person's is gone for good; else `dr-assets keys subjects verify` tells what happened",
    )
