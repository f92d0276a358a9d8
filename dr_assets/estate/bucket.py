"""A protected bucket of documents: the refusals of its declaration, and the accepted policy.

What belongs here: what only buckets declare. What stays out: what all kinds of source declare (rules.py), the strings'
shapes (schema_bucket.py).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from dr_assets.estate.accepted import common_of
from dr_assets.estate.documents import Document
from dr_assets.estate.durations import parse_duration
from dr_assets.estate.findings import Finding
from dr_assets.estate.model import BucketDataset, BucketRestoreTest, Regime, SubjectRule
from dr_assets.estate.schema import EstateDeclaration
from dr_assets.estate.schema_bucket import BucketDeclaration
from dr_assets.estate.topics import shorter_than_rpo

SUBJECT_GROUP: Final = "subject"
# What each kind of subject rule is told beside its kind.
_TOLD: Final = {"none": (), "key": ("pattern",), "tag": ("name",), "metadata": ("name",)}


def bucket_of(document: Document, declared: BucketDeclaration, regimes: Mapping[str, Regime]) -> BucketDataset:
    """The policy of a declaration without findings."""
    return BucketDataset(
        **common_of(document, declared, regimes),
        bucket=declared.bucket,
        prefix=declared.prefix,
        endpoint_env=declared.endpoint_env,
        access_key_env=declared.access_key_env,
        secret_key_env=declared.secret_key_env,
        s3_region=declared.s3_region,
        subject=SubjectRule(declared.subject.kind, declared.subject.pattern, declared.subject.name),
        events_queue_env=declared.events_queue_env,
        copy_every=parse_duration(declared.copy_every),
        full_every=parse_duration(declared.full_every),
        restore_test=BucketRestoreTest(declared.restore_test.cron),
    )


def bucket_rules(document: Document, declared: BucketDeclaration) -> Iterator[Finding]:
    """What a bucket may not ask for."""
    yield from shorter_than_rpo(document, declared, "copy_every", declared.copy_every)
    yield from shorter_than_rpo(document, declared, "linger", declared.linger)
    if parse_duration(declared.full_every) < parse_duration(declared.copy_every):
        reason = f"full_every {declared.full_every} is shorter than copy_every {declared.copy_every}"
        yield document.finding("policy.full_every", reason, "full_every")
    if declared.prefix.startswith("/"):
        reason = "a key's first character is hardly ever `/`: below this prefix nothing would be found"
        yield document.finding("policy.value", f"`prefix`: {reason}", "prefix")
    yield from _subject(document, declared)


def bucket_places(document: Document, declared: BucketDeclaration, estate: EstateDeclaration) -> Iterator[Finding]:
    """What a bucket may not be among an estate's other places."""
    if declared.subject.kind != "none" and estate.subjects is None:
        reason = (
            "documents sealed under their people's keys need the ring of those keys: declare the estate's `subjects`"
        )
        yield document.finding("policy.subject", reason, "subject")
    for name, vault in estate.vaults.items():
        own = {vault.bucket} | ({estate.subjects.bucket} if estate.subjects else set())
        if vault.endpoint_env == declared.endpoint_env and declared.bucket in own:
            reason = f"bucket {declared.bucket} is vault {name}'s own: its copies would be copied for ever"
            yield document.finding("policy.bucket", reason, "bucket")


def _subject(document: Document, declared: BucketDeclaration) -> Iterator[Finding]:
    subject = declared.subject
    needed = _TOLD[subject.kind]
    for name in ("pattern", "name"):
        given = getattr(subject, name) is not None
        if name in needed and not given:
            yield document.finding("policy.subject", f"a subject by `{subject.kind}` needs `{name}`", "subject")
        if given and name not in needed:
            reason = f"`{name}` says nothing about a subject by `{subject.kind}`"
            yield document.finding("policy.subject", reason, "subject", name)
    if subject.kind == "key" and subject.pattern is not None:
        try:
            groups = re.compile(subject.pattern).groupindex
        except re.error as error:
            yield document.finding("policy.subject", f"`pattern` is no expression: {error}", "subject", "pattern")
            return
        if SUBJECT_GROUP not in groups:
            reason = "`pattern` has no group that names the person: write (?P<subject>…) around that part of the key"
            yield document.finding("policy.subject", reason, "subject", "pattern")
