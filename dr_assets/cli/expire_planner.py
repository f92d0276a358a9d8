"""Who chooses what may expire, by the kind of the dataset.

What belongs here: that choice, for the verbs that ask for it. What stays out: choosing (stores/).
"""

from dr_assets.estate.errors import PolicyError
from dr_assets.estate.model import BucketDataset, Dataset, PostgresDataset, TopicsDataset
from dr_assets.stores.bucket.expiry_plan import BucketPlanner
from dr_assets.stores.kafka.expiry_plan import PackPlanner
from dr_assets.stores.postgres.expiry_plan import Planner


def planner_of(dataset: Dataset) -> type[Planner]:
    """What chooses, by the dataset's kind. Raises PolicyError `cli.wrong_kind`."""
    if isinstance(dataset, PostgresDataset):
        return Planner
    if isinstance(dataset, BucketDataset):
        return BucketPlanner
    if isinstance(dataset, TopicsDataset):
        return PackPlanner
    raise PolicyError(
        "cli.wrong_kind", f"'{dataset.name}' is of kind {dataset.kind}", "expiry is for databases, buckets and topics"
    )
