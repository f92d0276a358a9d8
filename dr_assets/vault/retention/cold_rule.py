"""The rule that moves old base backups into a cold class: for the store to carry out, since no object is ever copied.

What belongs here: the rule as S3 takes it. What stays out: setting it, which no role of ours may do.
"""

from datetime import timedelta
from typing import Any

from dr_assets.estate.model import Dataset
from dr_assets.vault.format.keys import part_stream, prefix_of


def cold_rule(estate: str, dataset: Dataset) -> dict[str, Any] | None:
    """One rule of a bucket's lifecycle, for parts of base backups alone; None where nothing is declared cold.

    Manifests, facts, keys and WAL stay warm: plans are made from them. Versions that somebody laid something over move
    too, a day later at the earliest. It deletes nothing.
    """
    if dataset.cold is None:
        return None
    days = max(1, -(-dataset.cold.after // timedelta(days=1)))
    move = {"StorageClass": dataset.cold.storage_class}
    return {
        "ID": f"{dataset.name}-base-backups-cold",
        "Status": "Enabled",
        "Filter": {"Prefix": f"{prefix_of(estate, dataset.name)}{part_stream('')}"},
        "Transitions": [move | {"Days": days}],
        "NoncurrentVersionTransitions": [move | {"NoncurrentDays": days}],
    }
