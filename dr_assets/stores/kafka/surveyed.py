"""What a survey sealed, read back as of a moment: topics, groups' offsets, ACLs, schemas.

What belongs here: reading. What stays out: looking and sealing (survey.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from dr_assets.stores.kafka.admin import GroupOffset, Place
from dr_assets.stores.kafka.survey import ACLS, GROUPS, SUBJECTS, TOPICS
from dr_assets.vault.facts import Fact, facts, latest_fact
from dr_assets.vault.format.canonical import Json, malformed
from dr_assets.vault.vault import Vault


@dataclass(frozen=True, slots=True)
class SurveyedTopic:
    """A topic as it was: `configs` are its own settings, `policy` its cleanup policy, set or not."""

    name: str
    topic_id: str
    partitions: int
    replication_factor: int
    configs: Mapping[str, str]
    policy: str


@dataclass(frozen=True, slots=True)
class Surveyed:
    """A cluster beside its records, as of one moment. `at` is when the newest of it was seen, None if nothing was.

    `topics` are by id and hold those that are gone, too, as they were last; `present` are the ids of the others.
    """

    at: datetime | None = None
    topics: Mapping[str, SurveyedTopic] = field(default_factory=dict)
    present: frozenset[str] = frozenset()
    groups: Mapping[str, Mapping[Place, GroupOffset]] = field(default_factory=dict)
    acls: tuple[Mapping[str, Json], ...] = ()
    subjects: tuple[Mapping[str, Json], ...] = ()
    compatibility: str | None = None


def surveyed(vault: Vault, dataset: str, *, at: datetime | None = None, as_of: datetime | None = None) -> Surveyed:
    """What was known at `at` by the capture's clock (now by default); `as_of` is the store's. Raises VaultError."""
    topics, present, seen = _topics(vault, dataset, at, as_of)
    groups, groups_at = _groups(vault, dataset, at, as_of)
    rules = _newest(vault, dataset, ACLS, at, as_of)
    subjects = _newest(vault, dataset, SUBJECTS, at, as_of)
    ats = [each for each in (seen, groups_at) if each is not None]
    ats += [fact.at for fact in (rules, subjects) if fact is not None]
    compatibility = None if subjects is None else subjects.body.get("compatibility")
    return Surveyed(
        max(ats, default=None), topics, present, groups, _rows(rules, "acls"), _rows(subjects, "subjects"),
        compatibility if isinstance(compatibility, str) else None,
    )  # fmt: skip


def _newest(vault: Vault, dataset: str, kind: str, at: datetime | None, as_of: datetime | None) -> Fact | None:
    if at is None:
        return latest_fact(vault, dataset, kind, as_of=as_of)
    newest = None
    for newest in facts(vault, dataset, kind, end=at, as_of=as_of):  # noqa: B007 - the last is wanted
        pass
    return newest


def _topics(
    vault: Vault, dataset: str, at: datetime | None, as_of: datetime | None
) -> tuple[dict[str, SurveyedTopic], frozenset[str], datetime | None]:
    found: dict[str, SurveyedTopic] = {}
    present: frozenset[str] = frozenset()
    seen = None
    for fact in facts(vault, dataset, TOPICS, end=at, as_of=as_of):
        listed = fact.body.get("topics")
        if not isinstance(listed, dict):
            raise malformed(f"{fact.key}: no topics")
        now = [_topic(name, raw, str(fact.key)) for name, raw in listed.items()]
        found |= {topic.topic_id: topic for topic in now}
        present, seen = frozenset(topic.topic_id for topic in now), fact.at
    return found, present, seen


def _topic(name: str, raw: Json, fact: str) -> SurveyedTopic:
    if not isinstance(raw, dict) or not isinstance(raw.get("configs"), dict):
        raise malformed(f"{fact}: no topic")
    configs = raw["configs"]
    assert isinstance(configs, dict)  # noqa: S101 - for the type checker
    partitions, factor = raw.get("partitions"), raw.get("replication_factor")
    if not isinstance(partitions, int) or not isinstance(factor, int):
        raise malformed(f"{fact}: no topic")
    own = {key: str(value) for key, value in configs.items()}
    return SurveyedTopic(name, str(raw.get("topic_id")), partitions, factor, own, str(raw.get("cleanup_policy", "")))


def _groups(
    vault: Vault, dataset: str, at: datetime | None, as_of: datetime | None
) -> tuple[dict[str, dict[Place, GroupOffset]], datetime | None]:
    """The newest fact that holds all, and what changed since."""
    found: dict[str, dict[Place, GroupOffset]] = {}
    seen = None
    for fact in facts(vault, dataset, GROUPS, end=at, as_of=as_of):
        if fact.body.get("full") is True:
            found = {}
        listed, removed = fact.body.get("groups"), fact.body.get("removed")
        if not isinstance(listed, dict) or not isinstance(removed, list):
            raise malformed(f"{fact.key}: no groups")
        for name in removed:
            found.pop(str(name), None)
        found |= {name: _offsets(raw, str(fact.key)) for name, raw in listed.items()}
        seen = fact.at
    return found, seen


def _offsets(raw: Json, fact: str) -> dict[Place, GroupOffset]:
    offsets: dict[Place, GroupOffset] = {}
    for topic, partitions in raw.items() if isinstance(raw, dict) else ():
        for partition, row in partitions.items() if isinstance(partitions, dict) else ():
            match row:
                case [int(offset), str(metadata), int(epoch)]:
                    offsets[(topic, int(partition))] = GroupOffset(offset, metadata, epoch)
                case _:
                    raise malformed(f"{fact}: no group's offset")
    return offsets


def _rows(fact: Fact | None, field_name: str) -> tuple[Mapping[str, Json], ...]:
    rows = None if fact is None else fact.body.get(field_name)
    return tuple(row for row in rows if isinstance(row, dict)) if isinstance(rows, list) else ()
