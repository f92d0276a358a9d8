"""The roles' policy documents: the AWS ones judged call by call, as AWS says it judges, and what is shipped of them."""

import fnmatch
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.estate.model import ROLES, Role
from dr_assets.vault.retention import LockRules
from dr_assets.vault.roles.calls import CALLS, Call
from dr_assets.vault.roles.documents import Document, bucket_policy, document, documents
from dr_assets.vault.roles.duties import DUTIES, Scope, cap_of, duty_of, is_source, scope_of

ESTATE: Final = load_estate(default_defs_dir()).only("ledger")
NOW: Final = datetime(2026, 11, 22, tzinfo=UTC)
SCOPE: Final = scope_of(ESTATE, "standby")
AWS: Final = documents(ESTATE, "standby", "aws", now=NOW)
BUCKET: Final = f"arn:aws:s3:::{SCOPE.bucket}"
WHERE: Final = {
    "bucket": BUCKET,
    "object": f"{BUCKET}/{SCOPE.estate}/ledger/wal/7/1/name",
    "other place": f"{BUCKET}/another/name",
    "other bucket": "arn:aws:s3:::another",
    "account": "*",
}


def is_true(operator: str, wanted: str, value: str | None) -> bool:
    """One condition. A negated one is true of a key that isn't there; any other is false of it."""
    if operator == "Null":
        return (value is None) == (wanted == "true")
    if operator in {"StringNotEquals", "StringNotLike"}:
        return value is None or not fnmatch.fnmatchcase(value, wanted)
    if value is None:
        return False
    if operator == "Bool":
        return value == wanted
    assert operator == "NumericGreaterThan"
    return int(value) > int(wanted)


def is_allowed(policies: list[Document], action: str, resource: str, context: dict[str, str]) -> bool:
    """IAM's rule: some statement allows it and none denies it."""
    effects: set[str] = set()
    for statement in (one for policy in policies for one in policy["Statement"]):
        resources = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
        conditions = statement.get("Condition", {})
        if (
            any(fnmatch.fnmatchcase(action, pattern) for pattern in statement["Action"])
            and any(fnmatch.fnmatchcase(resource, pattern) for pattern in resources)
            and all(
                is_true(op, want, context.get(key)) for op, keys in conditions.items() for key, want in keys.items()
            )
        ):
            effects.add(statement["Effect"])
    return effects == {"Allow"}


def context_of(call: Call) -> dict[str, str]:
    """What AWS knows of a request when it judges it."""
    cap = cap_of(ESTATE).days
    found = {"aws:SecureTransport": "true", "s3:ObjectCreationOperation": "true"}
    found |= {"s3:object-lock-mode": call.mode} if call.mode else {}
    found |= {"s3:object-lock-remaining-retention-days": str(cap + 30 if call.beyond else cap - 2)} if call.mode else {}
    found |= {"s3:object-lock-legal-hold": call.hold} if call.hold else {}
    return found | ({"s3:if-none-match": "*"} if call.once else {})


def granted(role: Role, call: Call, *more: Document) -> bool:
    """Whether every permission that a call asks for is given; what only a lock refuses is taken as refused."""
    rights = [is_allowed([AWS[role], *more], right, WHERE[call.on], context_of(call)) for right in call.rights]
    return all(rights) and not call.held


@pytest.mark.parametrize("role", ROLES)
def test_the_documents_for_aws_grant_what_the_matrix_says(role: Role) -> None:
    """Each call, judged as IAM judges: allowed to exactly those whom docs/roles.md names."""
    wrong = [call.name for call in CALLS if granted(role, call) != call.granted(role, "aws")]
    assert wrong == []


def test_the_policy_of_the_bucket_binds_whoever_else_has_rights() -> None:
    """An identity with every right in the account puts nothing unlocked or beyond the cap, and bypasses nothing."""
    everything: Document = {"Statement": [{"Effect": "Allow", "Action": ["s3:*"], "Resource": "*"}]}
    net = bucket_policy(SCOPE)
    assert all(statement["Effect"] == "Deny" and statement["Principal"] == "*" for statement in net["Statement"])
    by_name = {call.name: call for call in CALLS}

    def may(name: str) -> bool:
        call = by_name[name]
        return all(is_allowed([everything, net], right, WHERE[call.on], context_of(call)) for right in call.rights)

    assert may("put, locked within the cap")
    refused = ("put without a lock", "put, locked beyond the cap", "put a second version under a name", "send a part")
    assert not any(may(name) for name in (*refused, "delete it with the bypass", "lengthen a lock beyond the cap"))
    in_the_open = {**context_of(by_name["get an object"]), "aws:SecureTransport": "false"}
    assert not is_allowed([everything, net], "s3:GetObject", WHERE["object"], in_the_open)


def test_no_document_grants_a_pattern() -> None:
    """Rights are named one by one: an action that a store learns tomorrow is granted to nobody."""
    allowed = [one for document_ in AWS.values() for one in document_["Statement"] if one["Effect"] == "Allow"]
    assert not [action for statement in allowed for action in statement["Action"] if "*" in action]
    assert not [statement for statement in allowed if statement["Resource"] == "*"]


def test_the_cap_is_the_estates_longest_lock() -> None:
    """Every lock that our rules ask for fits under the cap, and the cap is not a day more than clocks need."""
    rules, cap = LockRules.of(ESTATE), cap_of(ESTATE)
    longest = max(rules.length("ledger", kind) for kind in ("wal", "part", "manifest", "fact", "key", "micro"))
    assert longest < cap <= longest + timedelta(days=3)


def test_a_replicator_writes_nothing_but_facts_where_it_copies_from() -> None:
    """In the first region its keys put no object of a dataset, lengthen no lock and place no hold."""
    assert is_source(ESTATE, "primary")
    assert not is_source(ESTATE, "standby")
    duty = duty_of("replicator", at_source=True)
    policy = document(duty, SCOPE, "aws")
    call = next(call for call in CALLS if call.name == "put, locked within the cap")
    facts = f"{BUCKET}/{SCOPE.estate}/vault/facts-replication-standby/0/0/name"
    assert is_allowed([policy], "s3:PutObject", facts, context_of(call))
    assert not is_allowed([policy], "s3:PutObject", WHERE["object"], context_of(call))
    assert not is_allowed([policy], "s3:PutObjectLegalHold", WHERE["object"], {"s3:object-lock-legal-hold": "ON"})


def test_governance_mode_is_granted_only_where_a_dataset_declares_it() -> None:
    """One dataset in governance mode opens the mode; an estate that is all compliance refuses it."""
    put = next(call for call in CALLS if call.name == "put, locked in governance mode")
    for mode, may in (("COMPLIANCE", False), ("*", True)):
        policy = document(DUTIES["writer"], Scope("dr-assets-vault", "casino", "500", mode), "aws")
        context: dict[str, Any] = context_of(put) | {"s3:object-lock-remaining-retention-days": "30"}
        assert is_allowed([policy], "s3:PutObject", WHERE["object"], context) is may
