"""Whether a full and the incrementals on top of it are of one history: the stored WAL leads from the one to the others.

What belongs here: following the WAL from the full to the newest layer, and the refusal. What stays out: which layers
(layers.py), the WAL behind the newest one, which a restore replays (course.py).

A source that was set back to an older state goes on with its system id and, without a promotion, with its timeline.
PostgreSQL then gives an incremental of a full that this source never had, and puts the two together without a word.
Only the WAL between them tells: a chain of another history never continues the one before it.
"""

from collections.abc import Sequence
from datetime import datetime

from dr_assets.estate.errors import VaultError
from dr_assets.stores.postgres.base_manifest import BaseManifest
from dr_assets.stores.postgres.course import find_course
from dr_assets.stores.postgres.history import History, Leg, parse_history
from dr_assets.stores.postgres.layers import BaseLayer
from dr_assets.stores.postgres.lsn import format_lsn
from dr_assets.stores.postgres.wal import segment_begin
from dr_assets.vault.vault import Vault


def require_one_history(
    vault: Vault, dataset: str, layers: Sequence[BaseLayer], *, as_of: datetime | None = None
) -> None:
    """Refuse layers that the stored WAL doesn't join, from where the full's begins to where the newest layer starts.

    A full alone is of one history. Raises VaultError `restore.layers_apart`, and whatever the vault says of trouble.
    """
    if len(layers) == 1:
        return
    full, newest = layers[0].manifest, layers[-1].manifest
    history = parse_history(newest.timeline, newest.history or "")
    for layer in layers[:-1]:
        _require_ancestor(layer.manifest, newest, history)
    legs = [*history.legs_from(full.timeline)[:-1], Leg(newest.timeline, newest.start_lsn)]
    begin = segment_begin(full.start_lsn, full.segment_bytes)
    course = find_course(vault, dataset, newest.system_id, legs, begin, as_of=as_of)
    if course.broken is not None or course.chain.end < newest.start_lsn:
        raise _apart(newest, full, f"the stored WAL that leads on from it ends at {format_lsn(course.chain.end)}")


def _require_ancestor(layer: BaseManifest, newest: BaseManifest, history: History) -> None:
    left = newest.start_lsn if layer.timeline == newest.timeline else history.left_at(layer.timeline)
    if left is None or layer.stop_lsn > left:
        raise _apart(newest, layer, f"timeline {newest.timeline} doesn't come from behind it")


def _apart(newest: BaseManifest, layer: BaseManifest, found: str) -> VaultError:
    return VaultError(
        "restore.layers_apart",
        f"incremental {newest.snapshot_id}, which starts at {format_lsn(newest.start_lsn)}, is not shown to be of the "
        f"history of base backup {layer.snapshot_id}, on which it rests: {found}",
        "take a full if the source lives; restore from another vault, or to a target before this incremental",
    )
