"""Expiry lists: which objects an expiry is about to remove, sealed before the first is.

What belongs here: the list's content, and reading lists. What stays out: choosing what to remove
(stores/postgres/expiry_plan.py).

A list is worked off stage by stage: a stage is begun once the one before is done, so that whatever a kill leaves
behind never looks whole.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dr_assets.vault.format import canonical
from dr_assets.vault.format.canonical import Json, malformed
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.format.sizes import plaintext_limit
from dr_assets.vault.prefix import parse_position
from dr_assets.vault.vault import Vault

EXPIRY_LIST: Final = "expiry-list"
EXPIRY: Final = "expiry"


@dataclass(frozen=True, slots=True)
class Doomed:
    """One name to remove: every version (and delete marker) of it that was listed. `stage` is why, and in what order.

    `size_bytes` is that of all versions.
    """

    key: ObjectKey
    versions: tuple[str, ...]
    stage: str
    size_bytes: int = 0


def line_of(row: Doomed) -> str:
    """The row as people approve it: its name and the ids of all its versions, which hold no space."""
    return " ".join((str(row.key), *row.versions))


def to_json(rows: Sequence[Doomed]) -> dict[str, Json]:
    """The list's plaintext, for `canonical.encode`: by stage in the order given, then by place."""
    stages: dict[str, dict[str, list[Json]]] = {}
    for row in rows:
        name = str(row.key).rpartition("/")[2]
        stages.setdefault(row.stage, {}).setdefault(row.key.place, []).append([name, *row.versions])
    return {
        "stages": [
            {"stage": stage, "objects": {place: list[Json](names) for place, names in places.items()}}
            for stage, places in stages.items()
        ]
    }


def begins_of(body: Mapping[str, Json]) -> dict[str, int]:
    """Of a fact `expiry`: at which position the streams of these places begin, now that what came before goes."""
    begins = body.get("begins")
    found = {
        place: parse_position(text)
        for place, text in (begins.items() if isinstance(begins, dict) else ())
        if isinstance(text, str)
    }
    return {place: position for place, position in found.items() if position is not None}


def expiry_lists(vault: Vault, dataset: str) -> Iterator[list[Doomed]]:
    """The rows of every list of a dataset, oldest first, opened and verified. Raises what `Vault.open` raises."""
    for obj in vault.objects(dataset, EXPIRY_LIST):
        name = str(obj.key)
        body = canonical.decode(vault.open(obj).plaintext, limit_bytes=plaintext_limit(EXPIRY_LIST), what=name)
        yield list(parse_expiry_list(body, name=name))


def parse_expiry_list(body: Mapping[str, Json], *, name: str) -> Iterator[Doomed]:
    """The rows of a list called `name`, in its order. Raises VaultError `vault.malformed`."""
    stages = body.get("stages")
    if not isinstance(stages, list):
        raise malformed(f"{name}: no expiry list")
    for stage in stages:
        if not isinstance(stage, dict) or not isinstance(stage.get("stage"), str):
            raise malformed(f"{name}: no expiry list")
        objects = stage.get("objects")
        if not isinstance(objects, dict):
            raise malformed(f"{name}: no expiry list")
        for place, names in objects.items():
            for row in names if isinstance(names, list) else []:
                yield _row(place, row, str(stage["stage"]), name)


def _row(place: str, row: Json, stage: str, name: str) -> Doomed:
    texts = [text for text in row if isinstance(text, str)] if isinstance(row, list) else []
    key = ObjectKey.parse(place + texts[0]) if texts else None
    if key is None:
        raise malformed(f"{name}: a name on it is malformed")
    return Doomed(key, tuple(texts[1:]), stage)
