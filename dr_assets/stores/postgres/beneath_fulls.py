"""Which micro-segments are proven to be in a full segment, so that they may be removed once their lock is over.

What belongs here: the proof. What stays out: locks, and what else goes (expiry_plan.py).

A full and its list are words of the same hand, so neither proves the other. A micro-segment is proven to be held only
if the list names it, the micro's own header tells the digest that the list tells, the full was opened just now and
holds bytes of that digest there, and no other full over these positions says anything else.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.stores.postgres.full_put import Stream
from dr_assets.vault.format.header import Header
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.full_segment import FULL, MICRO_KEYS, FullList, are_contiguous
from dr_assets.vault.storage import STORE_AWAY
from dr_assets.vault.storage.versions import Name
from dr_assets.vault.vault import StoredObject, Vault
from dr_assets.vault.verify.rolled import list_of, slices_of

_READERS: Final = 8
_CHUNK: Final = 256


@dataclass(slots=True)
class Fulls:
    """Believed fulls whose positions [first, last) overlap; of two rollers at once there may be the same one twice."""

    first: int
    last: int
    found: list[tuple[StoredObject, Header]] = field(default_factory=list)

    @property
    def agree(self) -> bool:
        """Whether they all say the same of the same positions."""
        said = {(one.first, one.last, one.plaintext_sha256, one.extra.get(MICRO_KEYS)) for _, one in self.found}
        return len(said) == 1


def fulls_over(vault: Vault, stream: Stream, position: int, troubles: list[str]) -> Iterator[Fulls]:
    """The fulls that reach beyond `position`, in order. Raises VaultError when the store is away.

    What isn't believed is passed over, whatever positions its name claims, and told in `troubles`.
    """
    group: Fulls | None = None
    for obj in vault.objects(stream.dataset, FULL, system_id=stream.system_id, timeline=stream.timeline):
        if obj.key.last <= position:
            continue
        header = _believed(vault, obj, troubles)
        if header is None:
            continue
        if group is not None and obj.key.first >= group.last:
            yield group
            group = None
        group = group or Fulls(obj.key.first, obj.key.last)
        group.last = max(group.last, obj.key.last)
        group.found.append((obj, header))
    if group is not None:
        yield group


class Prover:
    """Proves micros; why some are not is added to `troubles`."""

    def __init__(self, vault: Vault, troubles: list[str]) -> None:
        self._vault = vault
        self._troubles = troubles

    def held(self, fulls: Fulls, micros: Sequence[Name]) -> set[ObjectKey]:
        """Those of `micros`, which lie beneath `fulls`, that are proven. Raises VaultError when the store is away."""
        if not fulls.agree:
            self._tell(fulls.found[0][0], "another full segment over these positions says otherwise")
            return set()
        before = len(self._troubles)
        for obj, header in fulls.found:
            listed = self._read_back(obj, header)
            if listed is not None:
                del self._troubles[before:]
                return self._on_list(listed, micros)
        return set()

    def _read_back(self, full: StoredObject, header: Header) -> FullList | None:
        """The list of a full that can be opened and holds, slice by slice, what its list says its micros held."""
        try:
            opened, listed = self._vault.open(full), list_of(self._vault, full.key, header)
        except VaultError as error:
            if error.code in STORE_AWAY:
                raise
            self._tell(full, f"{error.code}: {error.found}")
            return None
        if listed is None or not are_contiguous([row.key for row in listed.covered], full.key.first, full.key.last):
            self._tell(full, "it has no list")
            return None
        slices = slices_of(listed)
        slices.update(opened.plaintext)
        if slices.digests != [row.plaintext_sha256 for row in listed.covered]:
            self._tell(full, "it does not hold their bytes")
            return None
        return listed

    def _on_list(self, listed: FullList, micros: Sequence[Name]) -> set[ObjectKey]:
        """Those that the list names and that say of themselves what it says of them."""
        told = {row.key: row.plaintext_sha256 for row in listed.covered}

        def is_held(name: Name) -> ObjectKey | None:
            key = name.key
            if key is None or key not in told:
                return None
            try:
                header = self._vault.header(self._vault.find(key))
            except VaultError as error:
                if error.code in STORE_AWAY:
                    raise
                return None
            return key if header.plaintext_sha256 == told[key] else None

        held: set[ObjectKey] = set()
        todo = iter(micros)
        with ThreadPoolExecutor(_READERS, thread_name_prefix="held") as pool:
            while chunk := list(islice(todo, _CHUNK)):
                held |= {key for key in pool.map(is_held, chunk) if key is not None}
        if len(held) < len(micros):
            left = len(micros) - len(held)
            self._troubles.append(f"{left} micro-segments beneath {listed.full} stay: they are not what its list says")
        return held

    def _tell(self, full: StoredObject, why: str) -> None:
        self._troubles.append(f"{full.key} keeps its micro-segments: {why}")


def _believed(vault: Vault, obj: StoredObject, troubles: list[str]) -> Header | None:
    try:
        return vault.header(obj)
    except VaultError as error:
        if error.code in STORE_AWAY:
            raise
        troubles.append(f"{obj.key} stands for no micro-segment: {error.code}: {error.found}")
        return None
