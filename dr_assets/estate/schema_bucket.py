"""The schema of a protected bucket of documents: the strings people write, field by field.

What belongs here: that declaration. What stays out: what all kinds of source declare (schema.py) and the rules
(bucket.py).
"""

from typing import Annotated, ClassVar

from pydantic import Field

from dr_assets.estate.model import SubjectKind
from dr_assets.estate.schema import BUCKET_PATTERN, DatasetDeclaration, Declared, DurationText, EnvName, Text
from dr_assets.estate.schema_topics import ScheduledDeclaration


class SubjectDeclaration(Declared):
    """Whose a document is: by its key, a tag or its metadata, or nobody's."""

    kind: SubjectKind
    pattern: Text | None = None
    name: Text | None = None


class BucketDeclaration(DatasetDeclaration):
    """One protected bucket, or the part of it below a prefix."""

    base: ClassVar[str] = "an inventory"

    bucket: Annotated[str, Field(pattern=BUCKET_PATTERN)]
    endpoint_env: EnvName
    access_key_env: EnvName
    secret_key_env: EnvName
    subject: SubjectDeclaration
    restore_test: ScheduledDeclaration
    prefix: str = ""
    s3_region: Text = "us-east-1"
    events_queue_env: EnvName | None = None
    copy_every: DurationText = "5m"
    full_every: DurationText = "7d"

    @property
    def restore_cron(self) -> str:
        """When a restore test is due."""
        return self.restore_test.cron

    @property
    def base_every(self) -> str:
        """How often a whole inventory is written."""
        return self.full_every
