"""The schema of a protected Kafka cluster's topics: the strings people write, field by field.

What belongs here: that declaration. What stays out: what all kinds of source declare (schema.py) and the rules
(topics.py).
"""

from typing import Annotated, ClassVar

from pydantic import Field

from dr_assets.estate.model import KafkaProtocol, SaslMechanism
from dr_assets.estate.schema import TOPIC_PATTERN, DatasetDeclaration, Declared, DurationText, EnvName, Text

TopicText = Annotated[str, Field(pattern=TOPIC_PATTERN)]


class KafkaSecurityDeclaration(Declared):
    """How the cluster is spoken to, secrets by the names of their variables."""

    protocol: KafkaProtocol = "PLAINTEXT"
    ca_file_env: EnvName | None = None
    mechanism: SaslMechanism | None = None
    username_env: EnvName | None = None
    password_env: EnvName | None = None


class ScheduledDeclaration(Declared):
    """When a restore test is due."""

    cron: Text


class TopicsDeclaration(DatasetDeclaration):
    """Protected topics of one Kafka cluster, with their groups, configuration and ACLs."""

    base: ClassVar[str] = "an export of compacted topics"

    bootstrap_env: EnvName
    topics: Annotated[list[TopicText], Field(min_length=1)]
    restore_test: ScheduledDeclaration
    exclude: list[TopicText] = Field(default=[])
    groups: list[Text] = Field(default=["*"])
    security: KafkaSecurityDeclaration = KafkaSecurityDeclaration()
    schema_registry_env: EnvName | None = None
    compacted_every: DurationText = "7d"
    erase_key: Text | None = None

    @property
    def restore_cron(self) -> str:
        """When a restore test is due."""
        return self.restore_test.cron

    @property
    def base_every(self) -> str:
        """How often compacted topics are exported anew."""
        return self.compacted_every
