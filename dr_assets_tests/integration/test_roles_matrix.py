"""Every S3 call with every role's own keys against a real store: what the matrix says is what happens."""

import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from botocore.exceptions import ClientError

from dr_assets.engines.programs import Programs
from dr_assets.engines.seaweed import Identity, SeaweedRegion
from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.estate.model import ROLES, Role
from dr_assets.vault.roles.calls import CALLS, SHRUGS, Call
from dr_assets.vault.roles.documents import RENEWED_EVERY, documents
from dr_assets.vault.roles.duties import cap_of, scope_of

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("roles-seaweed")]

ESTATE: Final = load_estate(default_defs_dir()).only("ledger")
SCOPE: Final = scope_of(ESTATE, "standby")
NOW: Final = datetime.now(UTC).replace(microsecond=0)
BEYOND: Final = NOW + cap_of(ESTATE) + RENEWED_EVERY + timedelta(days=30)
SOON, LATER, LAST = (NOW + timedelta(days=days) for days in (1, 20, 40))
DENIED: Final = frozenset({"AccessDenied", "403"})
ELSEWHERE: Final = frozenset({"CreateSession", "ListDirectoryBuckets", "WriteGetObjectResponse"})  # of other services
NONSENSE: Final = frozenset({"InvalidRequest"})  # the store's own word on what no lock allows
NOT_THERE: Final = frozenset({"NotImplemented", "501", "MethodNotAllowed", "405"})


@dataclass(frozen=True)
class Place:
    """The store as the admin laid it out, and everybody's client."""

    admin: "S3Client"
    clients: Mapping[Role, "S3Client"]
    bucket: str
    other: str

    def stored(self, *, mode: str | None = "COMPLIANCE", hold: bool = False) -> dict[str, Any]:
        """A new object of the admin's: bucket, name and version of it."""
        key = f"{SCOPE.estate}/ledger/{secrets.token_hex(6)}"
        lock: Any = {"ObjectLockMode": mode, "ObjectLockRetainUntilDate": LATER} if mode else {}
        lock |= {"ObjectLockLegalHoldStatus": "ON"} if hold else {}
        answer = self.admin.put_object(Bucket=self.bucket, Key=key, Body=b"sealed", **lock)
        return {"Bucket": self.bucket, "Key": key, "VersionId": answer["VersionId"]}

    def unlocked(self) -> dict[str, Any]:
        """An object that nothing locks. The bucket has no default lock, so that there can be one."""
        return self.stored(mode=None)

    def marker(self) -> dict[str, Any]:
        """A delete marker."""
        name = self.unlocked()
        answer = self.admin.delete_object(Bucket=self.bucket, Key=name["Key"])
        return name | {"VersionId": answer["VersionId"]}

    def upload(self) -> dict[str, Any]:
        """An upload in parts that somebody began, with one part."""
        key = f"{SCOPE.estate}/ledger/{secrets.token_hex(6)}"
        upload = self.admin.create_multipart_upload(Bucket=self.bucket, Key=key)["UploadId"]
        self.admin.upload_part(Bucket=self.bucket, Key=key, UploadId=upload, PartNumber=1, Body=b"part")
        return {"Bucket": self.bucket, "Key": key, "UploadId": upload}


@pytest.fixture(scope="module")
def place(engines_dir: Path, weed_programs: Programs) -> Iterator[Place]:
    """One region, whose identities are the roles of a declared vault with keys of their own."""
    policies = documents(ESTATE, "standby", "seaweedfs", now=NOW)
    identities = {role: Identity.throwaway(role, policies[role]) for role in ROLES}
    once: Any = {"retries": {"total_max_attempts": 1}}
    with SeaweedRegion(engines_dir / "roles", "roles", weed_programs, identities=[*identities.values()]) as region:
        region.start()
        other = "another-bucket"
        region.create_bucket(SCOPE.bucket)
        region.create_bucket(other, object_lock=False)
        clients = {role: region.client(identity, **once) for role, identity in identities.items()}
        yield Place(region.client(**once), clients, SCOPE.bucket, other)


@pytest.fixture(scope="module")
def control(place: Place) -> Place:
    """Buckets for the admin alone, since what he sets stays set."""
    place.admin.create_bucket(Bucket="control", ObjectLockEnabledForBucket=True)
    place.admin.create_bucket(Bucket="control-empty")
    return replace(place, bucket="control", other="control-empty")


def lock(until: datetime, mode: str = "COMPLIANCE") -> dict[str, Any]:
    """Headers of a put."""
    return {"ObjectLockMode": mode, "ObjectLockRetainUntilDate": until}


def retention(until: datetime | None, mode: str = "COMPLIANCE") -> dict[str, Any]:
    """Body of a put of retention."""
    return {"Retention": {} if until is None else {"Mode": mode, "RetainUntilDate": until}}


def new(place: Place, folder: str = f"{SCOPE.estate}/ledger") -> dict[str, Any]:
    """A name that is free."""
    return {"Bucket": place.bucket, "Key": f"{folder}/{secrets.token_hex(6)}", "Body": b"sealed", "IfNoneMatch": "*"}


def copy(place: Place) -> dict[str, Any]:
    """To a free name, from a version that is there."""
    source = place.stored()
    return {"Bucket": place.bucket, "Key": f"{source['Key']}-copy", "CopySource": source}


def many(*names: dict[str, Any]) -> dict[str, Any]:
    """The body of DeleteObjects."""
    return {"Delete": {"Objects": [{key: name[key] for key in ("Key", "VersionId") if key in name} for name in names]}}


def unversioned(name: dict[str, Any]) -> dict[str, Any]:
    """Without the version's id."""
    return {key: value for key, value in name.items() if key != "VersionId"}


def completed(place: Place) -> dict[str, Any]:
    """All parts of an upload, to be made an object."""
    upload = place.upload()
    parts = place.admin.list_parts(**upload)["Parts"]
    return upload | {"MultipartUpload": {"Parts": [{"ETag": parts[0]["ETag"], "PartNumber": 1}]}}


POLICY: Final = {"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{SCOPE.bucket}/public/*"}
]}  # fmt: skip
LIFECYCLE: Final = {"Rules": [{"ID": "soon", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}]}
AES: Final = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
BYPASS: Final = {"BypassGovernanceRetention": True}

# What each call of the matrix sends, made anew for everybody; `bucket` alone where nothing is named here.
REQUESTS: Final[dict[str, Callable[[Place], dict[str, Any]]]] = {
    "get an object": lambda p: unversioned(p.stored()),
    "get a version": lambda p: p.stored(),
    "see a version's size, digest and lock": lambda p: p.stored(),
    "see a version's retention": lambda p: p.stored(),
    "see a version's legal hold": lambda p: p.stored(hold=True),
    "have a cold object thawed": lambda p: p.stored() | {"RestoreRequest": {"Days": 1}},
    "put, locked within the cap": lambda p: new(p) | lock(LATER),
    "put a second version under a name": lambda p: {**unversioned(p.stored()), "Body": b"other", **lock(LATER)},
    "put without a lock": new,
    "put, locked in governance mode": lambda p: new(p) | lock(LATER, "GOVERNANCE"),
    "put, locked beyond the cap": lambda p: new(p) | lock(BEYOND),
    "put, locked and under a legal hold": lambda p: new(p) | lock(LATER) | {"ObjectLockLegalHoldStatus": "ON"},
    "put outside the estate's folder": lambda p: new(p, "another-estate") | lock(LATER),
    "put into another bucket": lambda p: new(p) | lock(LATER) | {"Bucket": p.other},
    "copy without a lock": copy,
    "copy, locked within the cap": lambda p: copy(p) | lock(LATER),
    "start an upload in parts, locked": lambda p: {**unversioned(p.stored()), **lock(LATER)},
    "start an upload in parts without a lock": lambda p: unversioned(p.stored()),
    "send a part": lambda p: p.upload() | {"PartNumber": 2, "Body": b"part"},
    "copy a part": lambda p: p.upload() | {"PartNumber": 2, "CopySource": p.stored()},
    "complete an upload in parts": completed,
    "abort an upload in parts": lambda p: p.upload(),
    "list the parts of an upload": lambda p: p.upload(),
    "lengthen a lock within the cap": lambda p: p.stored() | retention(LAST),
    "lengthen a lock beyond the cap": lambda p: p.stored() | retention(BEYOND),
    "shorten a lock": lambda p: p.stored() | retention(SOON),
    "turn compliance into governance": lambda p: p.stored() | retention(LAST, "GOVERNANCE"),
    "take a lock off": lambda p: p.stored() | retention(None),
    "shorten a governance lock": lambda p: p.stored(mode="GOVERNANCE") | retention(SOON, "GOVERNANCE"),
    "shorten a governance lock with the bypass": lambda p: (
        p.stored(mode="GOVERNANCE") | retention(SOON, "GOVERNANCE") | BYPASS
    ),
    "place a legal hold": lambda p: p.stored() | {"LegalHold": {"Status": "ON"}},
    "lift a legal hold": lambda p: p.stored(hold=True) | {"LegalHold": {"Status": "OFF"}},
    "delete a version that no lock holds": lambda p: p.unlocked(),
    "delete a delete marker": lambda p: p.marker(),
    "delete a locked version": lambda p: p.stored(),
    "delete a version under a legal hold": lambda p: p.stored(mode=None, hold=True),
    "delete a version locked in governance mode": lambda p: p.stored(mode="GOVERNANCE"),
    "delete it with the bypass": lambda p: p.stored(mode="GOVERNANCE") | BYPASS,
    "delete without a version id": lambda p: unversioned(p.stored()),
    "delete versions that no lock holds, many at once": lambda p: many(p.unlocked(), p.marker()),
    "delete locked versions, many at once": lambda p: many(p.stored()),
    "delete without version ids, many at once": lambda p: many(unversioned(p.stored())),
    "delete another, empty bucket": lambda p: {"Bucket": p.other},
    "suspend versioning": lambda _: {"VersioningConfiguration": {"Status": "Suspended"}},
    "change the default lock": lambda _: {"ObjectLockConfiguration": {"ObjectLockEnabled": "Enabled"}},
    "set a lifecycle": lambda _: {"LifecycleConfiguration": LIFECYCLE},
    "set a bucket policy": lambda _: {"Policy": json.dumps(POLICY)},
    "change who may reach the bucket": lambda _: {"ACL": "public-read"},
    "change who may reach an object": lambda p: unversioned(p.stored()) | {"ACL": "public-read"},
    "change the bucket's encryption": lambda _: {"ServerSideEncryptionConfiguration": AES},
    "tag an object": lambda p: unversioned(p.stored()) | {"Tagging": {"TagSet": [{"Key": "a", "Value": "b"}]}},
    "take an object's tags away": lambda p: unversioned(p.stored()),
    "make a bucket": lambda _: {"Bucket": f"made-{secrets.token_hex(4)}"},
    "list all buckets": lambda _: {"Bucket": None},
}


def minimal(shape: Any) -> Any:
    """The least that the SDK lets through for a request of this shape."""
    if shape.type_name == "structure":
        names = list(shape.members)[:1] if shape.is_tagged_union else shape.required_members
        return {name: minimal(shape.members[name]) for name in names}
    if shape.type_name == "list":
        return [minimal(shape.member)]
    if shape.type_name == "string":
        return shape.enum[0] if shape.enum else "x" * max(1, shape.metadata.get("min", 1))
    return {"integer": 1, "long": 1, "boolean": True, "timestamp": NOW, "blob": b"x", "map": {}}[shape.type_name]


def answer_of(client: "S3Client", operation: str, request: dict[str, Any]) -> str:
    """'' for done, else the store's code: of the call, or of the first of many that it refused."""
    model = client.meta.service_model.operation_model(operation)
    least = minimal(model.input_shape) if model.input_shape else {}
    method = next(name for name, op in client.meta.method_to_api_mapping.items() if op == operation)
    sent = {name: value for name, value in {**least, **request}.items() if value is not None}
    try:
        answer = getattr(client, method)(**sent)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return str(answer["Errors"][0]["Code"]) if answer.get("Errors") else ""


def spare(place: Place, operation: str) -> dict[str, Any]:
    """An object that is there, for what asks for one; the bucket, for what asks for one."""
    shape = place.admin.meta.service_model.operation_model(operation).input_shape
    given = unversioned(place.stored())
    return {name: value for name, value in given.items() if shape is not None and name in shape.members}


def asked(place: Place, client: "S3Client", call: Call) -> str:
    """Make one call of the matrix."""
    specific = REQUESTS[call.name](place) if call.name in REQUESTS else {}
    return answer_of(client, call.operation, {"Bucket": place.bucket} | specific)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name.replace(" ", "_"))
def test_every_role_gets_what_the_matrix_says(place: Place, call: Call) -> None:
    """Made with each role's own keys, a call is done or refused as docs/roles.md says, and never for another reason."""
    found = {role: asked(place, client, call) for role, client in place.clients.items()}
    assert {role for role, code in found.items() if not code} == {
        role for role in ROLES if call.granted(role, "seaweedfs")
    }, found
    assert {code for code in found.values() if code} <= DENIED | NOT_THERE | (NONSENSE if call.held else set()), found


@pytest.mark.parametrize("call", [call for call in CALLS if not call.held], ids=lambda call: call.name)
def test_the_store_grants_the_call_to_its_admin(control: Place, call: Call) -> None:
    """A refusal of the matrix is the policy's: the same request from the admin is not refused as such."""
    assert asked(control, control.admin, call) not in DENIED


def test_calls_that_no_row_names_are_refused_to_everybody(place: Place) -> None:
    """Whatever else the SDK can ask of a bucket or an object: none is granted, but for idle questions."""
    known = {call.operation for call in CALLS} | ELSEWHERE
    operations = set(place.admin.meta.service_model.operation_names) - known
    assert len(operations) > 40
    granted: set[str] = set()
    for operation in sorted(operations):
        for client in place.clients.values():
            if answer_of(client, operation, spare(place, operation)) not in DENIED | NOT_THERE:
                granted.add(operation)
    assert granted <= SHRUGS
    assert all(operation.startswith(("Get", "List")) for operation in SHRUGS)
