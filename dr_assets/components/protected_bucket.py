"""The component `ProtectedBucket`: one stanza makes the whole recovery chain of a bucket of documents.

What belongs here: reading the declaration. What stays out: the parts (bucket_*.py) and the policy's rules (estate/),
which judge the same declaration for the command line.
"""

from typing import Self

import dagster as dg
from pydantic import BaseModel

from dr_assets.components.bucket_parts import bucket_parts
from dr_assets.estate.declarations import BucketDeclaration, load_estate
from dr_assets.estate.model import BucketDataset, Estate


class ProtectedBucket(dg.Component):
    """A bucket under protection: copies, restore tests, erasures, their checks."""

    def __init__(self, estate: Estate, dataset: BucketDataset) -> None:
        self.estate = estate
        self.dataset = dataset

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """The estate's own schema, so that editor, `dg check yaml` and the command line ask for the same."""
        return BucketDeclaration

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        """Judge the whole estate around this declaration; raises `PolicyError` with every finding."""
        if not isinstance(attributes, BucketDeclaration):
            raise TypeError(attributes)
        estate = load_estate(context.path.parent)
        return cls(estate, estate.buckets()[attributes.dataset])

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Everything about this dataset. Reads no environment variable and reaches no network."""
        del context
        return bucket_parts(self.estate, self.dataset).definitions()
