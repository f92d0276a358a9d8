"""The duties as policy documents, for AWS and for SeaweedFS.

What belongs here: the two ways of writing one table down. What stays out: the table (duties.py).

AWS judges the lock itself (`s3:object-lock-…`), in a put and in a put of retention alike, so that the cap holds for
both; that the same permission lets a writer lengthen a lock is said in docs/roles.md. SeaweedFS judges the headers of a
request (`s3:x-amz-…`): a call without them, an extension, can be refused as such, its date can't be judged, and a cap
in days has to be a date.
"""

import json
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from dr_assets.estate.model import ROLES, Estate, Role
from dr_assets.vault.roles.duties import (
    DELETE,
    HOLD,
    LIST,
    PEOPLE,
    PEOPLE_STAY,
    PUT,
    STATE,
    Duty,
    Scope,
    cap_of,
    duty_of,
    is_source,
    scope_of,
)

Dialect = Literal["aws", "seaweedfs"]
VERSION: Final = "2012-10-17"
# How much later than the cap a fixed date may be, so that a store's configuration is good for a year.
RENEWED_EVERY: Final = timedelta(days=366)
_ISO: Final = "%Y-%m-%dT%H:%M:%SZ"

Document = dict[str, Any]  # JSON of IAM's own shape


def document(duty: Duty, scope: Scope, dialect: Dialect, *, latest: datetime | None = None) -> Document:
    """The policy of one duty. `latest` is the last moment that a lock may reach, where a store can't count days."""
    bucket, objects = f"arn:aws:s3:::{scope.bucket}", f"arn:aws:s3:::{scope.bucket}/{scope.estate}/*"
    where = f"arn:aws:s3:::{scope.bucket}/{scope.estate}/{duty.below}*"
    changes = [right for right in duty.on_objects if right in (*PUT, *HOLD, *DELETE)]
    reads = [right for right in duty.on_objects if right not in changes]
    statements = [_statement("Bucket", "Allow", duty.on_bucket, bucket)]
    if reads:
        statements.append(_statement("Read", "Allow", reads, objects))
    if changes:
        statements.append(_statement("Change", "Allow", changes, where))
    if duty.puts:
        statements += _aws_bounds(scope, objects) if dialect == "aws" else _header_bounds(duty, scope, objects, latest)
    if dialect == "aws":
        statements += _aws_nets(duty, bucket)
    statements.append(_statement("Never", "Deny", duty.denied, [bucket, f"{bucket}/*"]))
    return {"Version": VERSION, "Statement": statements}


def documents(estate: Estate, vault_name: str, dialect: Dialect, *, now: datetime) -> dict[Role, Document]:
    """All five for a declared vault, by role. Raises as `duties.cap_of`."""
    scope, at_source = scope_of(estate, vault_name), is_source(estate, vault_name)
    latest = now + cap_of(estate) + RENEWED_EVERY
    made = {role: document(duty_of(role, at_source=at_source), scope, dialect, latest=latest) for role in ROLES}
    if estate.subjects is not None and vault_name in estate.subjects.vaults:
        for role, rights in PEOPLE.items():
            made[role]["Statement"] += _people(estate.subjects.bucket, scope.estate, rights)
    return made


def _people(bucket: str, estate: str, rights: tuple[str, ...]) -> list[Document]:
    """In the bucket of people's keys beside the vault: who seals may add a key, and nobody may take one away."""
    whole = f"arn:aws:s3:::{bucket}"
    return [
        _statement("PeopleBucket", "Allow", LIST + STATE, whole),
        _statement("People", "Allow", rights, f"{whole}/{estate}/*"),
        _statement("PeopleStay", "Deny", PEOPLE_STAY, [whole, f"{whole}/*"]),
    ]


def bucket_policy(scope: Scope) -> Document:
    """What nobody in the account may do, whatever else they are allowed; for AWS."""
    bucket, objects = f"arn:aws:s3:::{scope.bucket}", f"arn:aws:s3:::{scope.bucket}/*"
    statements = [
        *_aws_bounds(scope, objects),
        _statement("NoBypass", "Deny", ["s3:BypassGovernanceRetention"], objects),
        _statement("NoPlainText", "Deny", ["s3:*"], [bucket, objects], {"Bool": {"aws:SecureTransport": "false"}}),
    ]
    return {"Version": VERSION, "Statement": [{**statement, "Principal": "*"} for statement in statements]}


def dumped(policy: Document) -> str:
    """A document as it is shipped: two spaces, keys in order, a newline at its end."""
    return json.dumps(policy, indent=2, sort_keys=True) + "\n"


def _aws_bounds(scope: Scope, objects: str) -> list[Document]:
    put, lock = ["s3:PutObject"], ["s3:PutObject", "s3:PutObjectRetention"]
    once = {"Null": {"s3:if-none-match": "true"}, "Bool": {"s3:ObjectCreationOperation": "true"}}
    beyond = {"NumericGreaterThan": {"s3:object-lock-remaining-retention-days": scope.cap_days}}
    return [
        _statement("NoPutWithoutLock", "Deny", put, objects, {"Null": {"s3:object-lock-mode": "true"}}),
        _statement("NoOtherMode", "Deny", lock, objects, {"StringNotLike": {"s3:object-lock-mode": scope.mode}}),
        _statement("NoLockBeyondCap", "Deny", lock, objects, beyond),
        _statement("NoSecondVersion", "Deny", put, objects, once),
    ]


def _header_bounds(duty: Duty, scope: Scope, objects: str, latest: datetime | None) -> list[Document]:
    mode, until = "s3:x-amz-object-lock-mode", "s3:x-amz-object-lock-retain-until-date"
    put = ["s3:PutObject"]
    bounds = [_statement("NoPutWithoutLock", "Deny", put, objects, {"Null": {mode: "true"}})]
    if scope.mode != "*":
        bounds.append(_statement("NoOtherMode", "Deny", put, objects, {"StringNotEquals": {mode: scope.mode}}))
    if latest is not None:
        beyond = {"DateGreaterThan": {until: latest.strftime(_ISO)}}
        bounds.append(_statement("NoLockBeyondCap", "Deny", put, objects, beyond))
    if not duty.extends:
        # A lock that comes without a put has no such header.
        bounds.append(_statement("NoExtension", "Deny", ["s3:PutObjectRetention"], objects, {"Null": {mode: "true"}}))
    return bounds


def _aws_nets(duty: Duty, bucket: str) -> list[Document]:
    everything = [bucket, f"{bucket}/*"]
    nets = [_statement("NoPlainText", "Deny", ["s3:*"], everything, {"Bool": {"aws:SecureTransport": "false"}})]
    if HOLD[0] in duty.on_objects:
        lifted = {"StringNotEquals": {"s3:object-lock-legal-hold": "ON"}}
        nets.append(_statement("NoHoldLifted", "Deny", HOLD, f"{bucket}/*", lifted))
    return nets


def _statement(
    sid: str,
    effect: Literal["Allow", "Deny"],
    actions: tuple[str, ...] | list[str],
    resource: str | list[str],
    condition: Document | None = None,
) -> Document:
    made: Document = {"Sid": sid, "Effect": effect, "Action": list(actions), "Resource": resource}
    return made if condition is None else {**made, "Condition": condition}
