"""A protected Kafka cluster's topics: the refusals of its declaration, and the accepted policy.

What belongs here: what only topics declare. What stays out: what all kinds of source declare (rules.py), the strings'
shapes (schema_topics.py), and judging addresses, which are read at run time (transport.py).
"""

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta

from dr_assets.estate.accepted import common_of
from dr_assets.estate.documents import Document
from dr_assets.estate.durations import format_duration, parse_duration
from dr_assets.estate.findings import Finding
from dr_assets.estate.model import TIERS, KafkaRestoreTest, KafkaSecurity, Regime, TopicsDataset
from dr_assets.estate.schema import DatasetDeclaration
from dr_assets.estate.schema_topics import TopicsDeclaration


def topics_of(document: Document, declared: TopicsDeclaration, regimes: Mapping[str, Regime]) -> TopicsDataset:
    """The policy of a declaration without findings."""
    security = declared.security
    return TopicsDataset(
        **common_of(document, declared, regimes),
        bootstrap_env=declared.bootstrap_env,
        topics=tuple(declared.topics),
        exclude=tuple(declared.exclude),
        groups=tuple(declared.groups),
        security=KafkaSecurity(
            security.protocol, security.ca_file_env, security.mechanism, security.username_env, security.password_env
        ),
        schema_registry_env=declared.schema_registry_env,
        compacted_every=parse_duration(declared.compacted_every),
        restore_test=KafkaRestoreTest(declared.restore_test.cron),
        erase_key=declared.erase_key,
    )


def topics_rules(document: Document, declared: TopicsDeclaration) -> Iterator[Finding]:
    """What topics may not ask for."""
    yield from shorter_than_rpo(document, declared, "linger", declared.linger)
    yield from _security(document, declared)
    yield from _erase_key(document, declared)
    for name in ("topics", "exclude"):
        listed: list[str] = getattr(declared, name)
        for index, text in enumerate(listed):
            if text in listed[:index]:
                yield document.finding("policy.value", f"`{text}` is listed twice", name, index)
    for index, text in enumerate(declared.topics):
        if text in declared.exclude:
            reason = f"`{text}` is captured and excluded at once: nothing of it would be kept"
            yield document.finding("policy.topics", reason, "topics", index)


def _erase_key(document: Document, declared: TopicsDeclaration) -> Iterator[Finding]:
    if declared.erase_key is None:
        return
    try:
        groups = re.compile(declared.erase_key).groupindex
    except re.error as error:
        yield document.finding("policy.erase_key", f"`erase_key` is no expression: {error}", "erase_key")
        return
    if "subject" not in groups:
        reason = "`erase_key` has no group that names the person: write (?P<subject>…) around that part of the key"
        yield document.finding("policy.erase_key", reason, "erase_key")


def rpo_of(declared: DatasetDeclaration) -> timedelta | None:
    """The declared objective or its tier's; None for a tier that doesn't exist, which is refused elsewhere."""
    tier = TIERS.get(declared.tier)
    return parse_duration(declared.rpo) if declared.rpo else None if tier is None else tier.rpo


def shorter_than_rpo(document: Document, declared: DatasetDeclaration, key: str, text: str) -> Iterator[Finding]:
    """Refuse a wait (of key `key`) that alone is as long as the loss that is promised at most."""
    rpo = rpo_of(declared)
    if rpo is not None and parse_duration(text) >= rpo:
        reason = f"{key} {text} is not shorter than the rpo of {format_duration(rpo)}, which could not be held"
        yield document.finding(f"policy.{key}", reason, key)


def _security(document: Document, declared: TopicsDeclaration) -> Iterator[Finding]:
    security = declared.security
    told = {
        "mechanism": security.mechanism,
        "username_env": security.username_env,
        "password_env": security.password_env,
    }
    for name, value in told.items():
        if security.protocol.startswith("SASL_") and value is None:
            reason = f"protocol {security.protocol} needs `{name}`"
            yield document.finding("policy.kafka_security", reason, "security")
        if not security.protocol.startswith("SASL_") and value is not None:
            reason = f"`{name}` is for SASL_SSL or SASL_PLAINTEXT; protocol {security.protocol} shows nobody a password"
            yield document.finding("policy.kafka_security", reason, "security", name)
    if security.ca_file_env is not None and security.protocol in {"PLAINTEXT", "SASL_PLAINTEXT"}:
        reason = f"`ca_file_env` is for SSL or SASL_SSL; protocol {security.protocol} checks no certificate"
        yield document.finding("policy.kafka_security", reason, "security", "ca_file_env")
