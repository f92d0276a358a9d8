"""The roles' keys at work against a real store: each duty can be done, and what protects where a store refuses less."""

import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from botocore.exceptions import ClientError

from dr_assets.engines.programs import Programs
from dr_assets.engines.seaweed import Identity, SeaweedRegion
from dr_assets.engines.waiting import wait_until
from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.estate.errors import VaultError
from dr_assets.estate.model import ROLES, Role, Subjects
from dr_assets.stores.postgres.capture_facts import Anchor, record_capture
from dr_assets.stores.postgres.expire_consent import remove_versions
from dr_assets.stores.postgres.full_cut import Limits
from dr_assets.stores.postgres.rollup_run import roll_up
from dr_assets.vault.expiry_list import Doomed
from dr_assets.vault.facts import record_fact
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.format.segment import Sealed
from dr_assets.vault.keys.memory_provider import MemoryKeyProvider
from dr_assets.vault.roles.documents import documents
from dr_assets.vault.roles.duties import scope_of
from dr_assets.vault.signing import Signer
from dr_assets.vault.storage import Lock
from dr_assets.vault.storage.s3 import S3Store, make_client
from dr_assets.vault.subjects.s3_shelf import S3Shelf
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify import verify

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("roles-seaweed")]

ESTATE: Final = replace(
    load_estate(default_defs_dir()).only("ledger"),
    subjects=Subjects(("primary", "standby"), "people-keys", "DR_SUBJECT_ID_KEY"),
)
SCOPE: Final = scope_of(ESTATE, "primary")
RULES: Final = {name: (dataset.retention, dataset.base_every) for name, dataset in ESTATE.datasets.items()}
SIZE: Final = 1000
DAY: Final = timedelta(days=1)


@dataclass
class Office:
    """One vault, opened by each role with its own keys; signing key and key provider are the same for all."""

    region: SeaweedRegion
    identities: dict[Role, Identity]
    signer: Signer = field(default_factory=Signer.generate)
    provider: MemoryKeyProvider = field(default_factory=MemoryKeyProvider)

    def store(self, role: Role | None) -> S3Store:
        """The bucket; without a role the administrator's."""
        who = self.identities[role] if role else None
        keys = (who.access_key, who.secret_key) if who else (self.region.access_key, self.region.secret_key)
        return S3Store(make_client(self.region.endpoint, *keys, attempts=1), SCOPE.bucket)

    def vault(self, role: Role | None) -> Vault:
        """For one duty."""
        return throwaway_vault(store=self.store(role), signer=self.signer, provider=self.provider, rules=RULES)


@pytest.fixture(scope="module")
def office(engines_dir: Path, weed_programs: Programs) -> Iterator[Office]:
    """A region with the roles of the first vault, and its bucket as `vault init` makes it."""
    policies = documents(ESTATE, "primary", "seaweedfs", now=datetime.now(UTC))
    identities = {role: Identity.throwaway(role, policies[role]) for role in ROLES}
    with SeaweedRegion(engines_dir / "office", "office", weed_programs, identities=[*identities.values()]) as region:
        region.start()
        made = Office(region, identities)
        made.store(None).create_bucket("GOVERNANCE", 1)
        yield made


def sealed(vault: Vault, number: int = 0, previous: str | None = None, stream: str = "wal") -> Sealed:
    """A piece of WAL."""
    now = vault.clock()
    prepared = vault.prepare(
        dataset="ledger", stream=stream, kind="wal", system_id="7", timeline=1, first=number * SIZE,
        last=(number + 1) * SIZE, begin_at=now, end_at=now, plaintext=bytes([number % 256]) * SIZE, previous=previous,
    )  # fmt: skip
    return prepared.seal()


def test_each_duty_is_done_with_its_own_keys(office: Office) -> None:
    """Capture as the writer, roll-up as the roller, verify as the reader: nobody lacks a right that the duty needs."""
    writer, previous = office.vault("writer"), None
    for number in range(12):
        now = writer.clock()
        prepared = writer.prepare(
            dataset="ledger", stream="wal", kind="wal", system_id="7", timeline=1, first=number * SIZE,
            last=(number + 1) * SIZE, begin_at=now, end_at=now, plaintext=bytes([number]) * SIZE, previous=previous,
        )  # fmt: skip
        writer.put(prepared.seal(), writer.locks.lock("ledger", "micro", now))
        previous = prepared.header.digest
    record_capture(writer, "ledger", "stopped", Anchor("7", 1, 0, 12 * SIZE, None, None, 1, None))
    roller = office.vault("roller")
    assert roll_up(roller, "ledger", limits=Limits(size_bytes=8 * SIZE)).fulls == 1
    obj = next(roller.objects("ledger", "wal"))
    assert roller.ensure_locked(obj, roller.locks.lock("ledger", "wal", roller.clock()))
    assert not [finding for finding in verify(office.vault("reader")).findings if finding.kind == "missing"]
    for role in ("writer", "reader", "expirer"):
        with pytest.raises(VaultError, match="refused_credentials"):
            office.store(role).extend(str(obj.key), obj.version_id, roller.locks.lock("ledger", "key", roller.clock()))


def test_a_writers_retry_needs_no_right_to_lengthen(office: Office) -> None:
    """The same bytes again some seconds later, with a lock of the same days: stored. A longer one is an error."""
    writer = office.vault("writer")
    piece = sealed(writer, 100)
    first = writer.put(piece, writer.locks.lock("ledger", "wal", writer.clock()))
    time.sleep(2)  # stores tell whole seconds
    again = writer.put(piece, writer.locks.lock("ledger", "wal", writer.clock()))
    assert (again.version_id, again.lock) == (first.version_id, first.lock)
    with pytest.raises(VaultError, match="not_locked"):
        writer.put(piece, Lock("COMPLIANCE", first.lock.retain_until + DAY))


def test_a_second_version_harms_nothing_and_is_named(office: Office) -> None:
    """SeaweedFS lets a writer put over a name: readers take the sealed version, verify names the other."""
    writer = office.vault("writer")
    receipt = record_fact(writer, "ledger", "snapshot", {"size_bytes": 1})
    until = writer.clock() + 2 * DAY
    office.store("writer").client.put_object(
        Bucket=SCOPE.bucket, Key=str(receipt.key), Body=b"junk", ObjectLockMode="COMPLIANCE",
        ObjectLockRetainUntilDate=until,
    )  # fmt: skip
    reader = office.vault("reader")
    obj = reader.find(receipt.key)
    assert obj.version_id == receipt.version_id
    assert b"size_bytes" in reader.open(obj).plaintext
    named = {finding.kind for finding in verify(reader).findings if finding.key == str(receipt.key)}
    assert named == {"overlay"}


def test_a_copy_under_another_name_is_not_believed(office: Office) -> None:
    """SeaweedFS lets a writer copy: what is sealed for one place is refused at another."""
    writer = office.vault("writer")
    piece = sealed(writer, 200)
    writer.put(piece, writer.locks.lock("ledger", "wal", writer.clock()))
    other = ObjectKey.parse(str(piece.key).replace(f"{200 * SIZE:016X}-", f"{199 * SIZE:016X}-"))
    assert other is not None
    office.store("writer").client.copy_object(
        Bucket=SCOPE.bucket, Key=str(other), CopySource={"Bucket": SCOPE.bucket, "Key": str(piece.key)},
        ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=writer.clock() + DAY,
    )  # fmt: skip
    reader = office.vault("reader")
    with pytest.raises(VaultError, match="misplaced"):
        reader.open(reader.find(other))


def test_what_the_administrator_puts_without_a_lock_gets_the_buckets(office: Office) -> None:
    """The net beneath every policy: no object of the bucket is ever without a lock."""
    store = office.store(None)
    key = f"{SCOPE.estate}/ledger/{secrets.token_hex(4)}"
    store.client.put_object(Bucket=SCOPE.bucket, Key=key, Body=b"unlocked?")
    head = store.head(key)
    assert head is not None
    assert head.lock is not None


def put_locked_for_a_moment(office: Office, piece: Sealed) -> tuple[datetime, Any]:
    """By the administrator; until when it is locked for certain, and the store's answer.

    A lock has to end in the future when the store hears of it, which on a slow machine takes longer than a moment.
    """
    for span_s in (2, 10, 60):
        until = office.vault("writer").clock() + timedelta(seconds=span_s)
        with suppress(ClientError):
            return until + timedelta(seconds=2), office.store(None).client.put_object(
                Bucket=SCOPE.bucket, Key=str(piece.key), Body=piece.data, ObjectLockMode="GOVERNANCE",
                ObjectLockRetainUntilDate=until,
            )  # fmt: skip
    pytest.fail("a minute was too short")


def test_the_expirer_deletes_what_no_lock_holds_and_can_not_look(office: Office) -> None:
    """Its keys remove by version id; what is locked stays, and the writer's eyes say that it was a lock."""
    writer, admin, expirer = office.vault("writer"), office.store(None), office.store("expirer")
    locked = sealed(writer, 300)
    receipt = writer.put(locked, writer.locks.lock("ledger", "wal", writer.clock()))
    gone = sealed(writer, 301)
    until, answer = put_locked_for_a_moment(office, gone)
    wait_until(lambda: writer.clock() > until, timeout_s=180, what="the end of the lock", every_s=0.1)
    assert remove_versions(writer, expirer, Doomed(gone.key, (answer["VersionId"],), "aged")) is None
    assert admin.head(str(gone.key)) is None
    kept = remove_versions(writer, expirer, Doomed(receipt.key, (receipt.version_id,), "aged"))
    assert kept is not None
    assert "locked" in kept
    with pytest.raises(VaultError, match="refused_credentials"):
        remove_versions(writer, office.store("roller"), Doomed(gone.key, (answer["VersionId"],), "aged"))
    with pytest.raises(VaultError, match="refused_credentials"):
        expirer.get(str(receipt.key))


def test_a_replicator_leaves_its_facts_in_the_first_region_and_nothing_else(office: Office) -> None:
    """There it puts what it has proven; a piece of a dataset, a longer lock and a hold are refused."""
    replicator = office.vault("replicator")
    assert record_fact(replicator, "vault", "replication-standby", {"objects": 1}).lock.mode == "COMPLIANCE"
    writer = office.vault("writer")
    receipt = writer.put(sealed(writer, 400), writer.locks.lock("ledger", "wal", writer.clock()))
    for attempt in (
        lambda: replicator.put(sealed(writer, 401), writer.locks.lock("ledger", "wal", writer.clock())),
        lambda: replicator.store.extend(
            str(receipt.key), receipt.version_id, Lock("COMPLIANCE", receipt.lock.retain_until + DAY)
        ),
        lambda: replicator.store.set_hold(str(receipt.key), receipt.version_id, held=True),
    ):
        with pytest.raises(VaultError, match="refused_credentials"):
            attempt()


def test_a_capture_makes_peoples_keys_and_no_role_can_take_one_away(office: Office) -> None:
    """Writer and roller add and read, the reader reads; nobody deletes or hides one, the others don't see them."""

    def shelf(role: Role | None) -> S3Shelf:
        return S3Shelf(office.store(role).client, "people-keys", "primary")

    shelf(None).create_bucket()
    name = f"{ESTATE.name}/ab/{'ab' * 16}/key"
    writer = shelf("writer")
    writer.require_fit()
    assert writer.put_new(name, b"a record")
    assert not shelf("roller").put_new(name, b"another")
    users: tuple[Role, ...] = ("writer", "roller", "reader")
    for role in users:
        assert shelf(role).get(name) == b"a record"
        assert shelf(role).versions(name) == [b"a record"]
        assert list(shelf(role).names(f"{ESTATE.name}/")) == [name]
        with pytest.raises(VaultError, match="refused_credentials"):
            shelf(role).erase(name)
        with pytest.raises(ClientError, match="AccessDenied"):
            shelf(role).client.delete_object(Bucket="people-keys", Key=name)
    with pytest.raises(VaultError, match="refused_credentials"):
        shelf("reader").put_new(name.replace("ab", "cd"), b"a record")
    others: tuple[Role, ...] = ("replicator", "expirer")
    for other in others:
        with pytest.raises(VaultError, match="refused_credentials"):
            shelf(other).get(name)
    assert shelf(None).versions(name) == [b"a record"]
