"""The component `ProtectedTopics`: one stanza makes the whole recovery chain of a Kafka cluster's topics.

What belongs here: reading the declaration. What stays out: the parts (topics_*.py) and the policy's rules (estate/),
which judge the same declaration for the command line and the capture.
"""

from typing import Self

import dagster as dg
from pydantic import BaseModel

from dr_assets.components.topics_parts import topics_parts
from dr_assets.estate.declarations import TopicsDeclaration, load_estate
from dr_assets.estate.model import TopicsDataset


class ProtectedTopics(dg.Component):
    """Topics of a Kafka cluster under protection: the export, restore tests, their checks."""

    def __init__(self, dataset: TopicsDataset) -> None:
        self.dataset = dataset

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """The estate's own schema, so that editor, `dg check yaml` and the command line ask for the same."""
        return TopicsDeclaration

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        """Judge the whole estate around this declaration; raises `PolicyError` with every finding."""
        if not isinstance(attributes, TopicsDeclaration):
            raise TypeError(attributes)
        return cls(load_estate(context.path.parent).topics()[attributes.dataset])

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Everything about this dataset. Reads no environment variable and reaches no network."""
        del context
        return topics_parts(self.dataset).definitions()
