"""Access rules and schemas put into the target, on demand: they are not records, and a target may have its own.

What belongs here: the calls. What stays out: what was captured (survey.py), whether it is wanted (the command line).
"""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from typing import Any, Final

from kafka.protocol.admin import CreateAclsRequest

from dr_assets.estate.errors import SourceError
from dr_assets.stores.kafka.admin import Acl
from dr_assets.stores.kafka.refusals import BrokerError
from dr_assets.stores.kafka.wire import Cluster
from dr_assets.vault.format.canonical import Json

_TOPIC, _LITERAL = 2, 3
_FIELDS: Final = ("resource_type", "resource_name", "pattern_type", "principal", "host", "operation", "permission")
_TIMEOUT_S: Final = 30.0
_JSON: Final = "application/vnd.schemaregistry.v1+json"


def rules_for(rules: Iterable[Mapping[str, Json]], names: Mapping[str, str]) -> list[Acl]:
    """The rules as they shall be in the target: those of a single topic under its new name, or not at all.

    Rules for patterns, groups, users and the cluster are as they were.
    """
    found = []
    for raw in rules:
        said: dict[str, Any] = {name: raw[name] for name in _FIELDS}
        if (said["resource_type"], said["pattern_type"]) == (_TOPIC, _LITERAL) and said["resource_name"] != "*":
            if said["resource_name"] not in names:
                continue
            said["resource_name"] = names[said["resource_name"]]
        found.append(Acl(**said))
    return found


def create_rules(cluster: Cluster, rules: Iterable[Acl]) -> int:
    """Make every rule; one that is there stays. How many. Raises BrokerError (`kafka.denied`, `kafka.refused`)."""
    kind = CreateAclsRequest.AclCreation
    creations = [
        kind(
            resource_type=rule.resource_type,
            resource_name=rule.resource_name,
            resource_pattern_type=rule.pattern_type,
            principal=rule.principal,
            host=rule.host,
            operation=rule.operation,
            permission_type=rule.permission,
        )
        for rule in rules
    ]
    if creations:
        for each in cluster.ask(lambda: CreateAclsRequest(creations=creations)).results:
            if each.error_code:
                raise BrokerError(each.error_code, "making access rules")
    return len(creations)


def register_subjects(url: str, subjects: Iterable[Mapping[str, Json]]) -> int:
    """Register every version under its own number and id, for records carry ids. How many.

    Each subject is put into the registry's IMPORT mode for it, which a subject with other versions refuses. Raises
    SourceError (`kafka.registry`).
    """
    base = url.rstrip("/")
    if urllib.parse.urlsplit(base).scheme not in {"http", "https"}:
        raise SourceError("kafka.registry", "the schema registry's address is no http URL", "set it to http(s)://…")
    wanted = sorted(subjects, key=lambda each: (str(each["subject"]), _number(each["version"])))
    for name in dict.fromkeys(str(each["subject"]) for each in wanted):
        quoted = urllib.parse.quote(name, safe="")
        _send("PUT", f"{base}/mode/{quoted}", {"mode": "IMPORT"})
        try:
            for each in (one for one in wanted if one["subject"] == name):
                body = {key: each[key] for key in ("schema", "schemaType", "references", "id", "version")}
                _send("POST", f"{base}/subjects/{quoted}/versions", body)
        finally:
            _send("PUT", f"{base}/mode/{quoted}", {"mode": "READWRITE"})
    return len(wanted)


def _number(value: Json) -> int:
    return value if isinstance(value, int) else 0


def _send(method: str, url: str, body: Mapping[str, Json]) -> None:
    request = urllib.request.Request(  # noqa: S310 - the scheme was looked at
        url, data=json.dumps(body).encode(), method=method, headers={"Content-Type": _JSON}
    )
    path = urllib.parse.urlsplit(url).path
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - as above
            answer.read()
    except urllib.error.HTTPError as error:
        raise _bad(f"{path} answers {error.code}") from None
    except OSError as error:
        raise _bad(f"{path}: {getattr(error, 'reason', None) or type(error).__name__}") from None


def _bad(what: str) -> SourceError:
    return SourceError(
        "kafka.registry", f"the schema registry: {what}", "check that it runs, its URL, and that it allows IMPORT mode"
    )
