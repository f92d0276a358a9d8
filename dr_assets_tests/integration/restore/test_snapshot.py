import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from dr_assets.estate.errors import PolicyError, SourceError, VaultError
from dr_assets.stores.postgres import base_manifest, patience
from dr_assets.stores.postgres.basebackup import BaseBackup
from dr_assets.stores.postgres.parts import PartWriter
from dr_assets.stores.postgres.plan import plan_restore
from dr_assets.stores.postgres.protocol import ConnectionLostError
from dr_assets.stores.postgres.snapshot import SnapshotProgress, take_snapshot
from dr_assets.stores.postgres.target import Target
from dr_assets.vault.facts import latest_fact
from dr_assets.vault.verify import verify

if TYPE_CHECKING:
    from conftest import History, Source

pytestmark = pytest.mark.integration


def manifest_of(history: "History") -> base_manifest.BaseManifest:
    """The manifest of base backup B."""
    vault = history.source.vault
    stored = next(obj for obj in vault.objects("ledger", "base") if str(obj.key) == history.b.manifest_key)
    return base_manifest.decode(vault.open(stored).plaintext, name="b")


def test_the_manifest_says_what_a_restore_needs(history: "History") -> None:
    """Archives by part, the WAL range, the cluster's identity; PostgreSQL's own manifest is kept and fits."""
    manifest = manifest_of(history)
    assert [archive.name for archive in manifest.archives][-1] == "base.tar"
    assert {archive.oid for archive in manifest.archives if archive.oid} == {16384, 16388} or len(
        manifest.archives
    ) == 3
    assert all(archive.location for archive in manifest.archives if archive.oid)
    assert manifest.server_version // 10000 == 17
    assert manifest.start_lsn < manifest.stop_lsn <= history.end
    assert manifest.data_checksums
    assert manifest.settings["max_connections"] == "100"
    assert manifest.superuser == "postgres"
    assert manifest.begin_at < manifest.end_at
    parts = manifest.parts[manifest.backup_manifest.first_part : manifest.backup_manifest.last_part]
    vault = history.source.vault
    listed = {str(obj.key): obj for obj in vault.objects("ledger", f"base-{manifest.snapshot_id}")}
    own = json.loads(b"".join(vault.open(listed[part.key]).plaintext for part in parts))
    assert own["WAL-Ranges"][0]["Timeline"] == 1
    assert all(entry["Checksum-Algorithm"] == "CRC32C" for entry in own["Files"])


def test_everything_is_locked_for_retention_interval_and_a_week(history: "History") -> None:
    """Parts and manifest carry the same lock, read back from the store: 30 days, one day, seven days."""
    vault = history.source.vault
    for stream in ("base", f"base-{history.b.snapshot_id}"):
        for obj in vault.objects("ledger", stream):
            head = vault.store.head(str(obj.key), obj.version_id)
            assert head is not None
            assert head.lock is not None
            assert head.lock.mode == "COMPLIANCE"
            assert head.lock.retain_until - obj.modified_at > timedelta(days=38) - timedelta(minutes=5)
    assert history.b.lock.retain_until.microsecond == 0


def test_the_vault_s_own_verification_has_nothing_to_say(history: "History") -> None:
    """Manifest, parts, WAL and facts as written here are whole to the verifier."""
    assert verify(history.source.vault).findings == ()


def test_a_sealed_fact_tells_of_it(history: "History") -> None:
    """What makes the asset green comes from the vault."""
    fact = latest_fact(history.source.vault, "ledger", "snapshot")
    assert fact is not None
    assert fact.body["snapshot_id"] == history.b.snapshot_id
    assert fact.body["manifest_key"] == history.b.manifest_key
    assert fact.body["size_bytes"] == history.b.size_bytes
    assert fact.body["lock"] == "compliance"


def test_progress_is_told_and_parts_are_bounded(history: "History", monkeypatch: pytest.MonkeyPatch) -> None:
    """With small parts there are many, never more in flight than threads and one; progress only grows."""
    source = history.source.clone()
    in_flight, most = 0, 0
    put = PartWriter._put

    def counted(self: PartWriter, *args: Any) -> Any:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        try:
            return put(self, *args)
        finally:
            in_flight -= 1

    original = PartWriter.__init__
    monkeypatch.setattr(PartWriter, "_put", counted)
    monkeypatch.setattr(
        PartWriter, "__init__", lambda self, *a, **k: original(self, *a, **{**k, "part_bytes": 1 << 20})
    )
    monkeypatch.setattr("dr_assets.stores.postgres.snapshot.PART_BYTES", 1 << 20)
    told: list[SnapshotProgress] = []
    result = take_snapshot(source.vault, source.dataset, source.dsn, progress=told.append)
    assert result.parts > 15
    assert most <= 8
    assert [p.received_bytes for p in told] == sorted(p.received_bytes for p in told)
    assert told[-1].estimated_bytes
    assert result.stored_bytes < result.size_bytes


def test_a_store_that_takes_nothing_more_ends_the_backup_without_a_manifest(
    history: "History", monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first part that cannot be put is the error; what is stored already counts for nothing."""
    source = history.source.clone()
    put, count = type(source.store).put, 0

    def failing(self: Any, key: str, *args: Any) -> Any:
        nonlocal count
        count += "/base-" in key
        if count > 1:
            raise VaultError("vault.refused_credentials", "the store says no", "look")
        return put(self, key, *args)

    monkeypatch.setattr(type(source.store), "put", failing)
    before = [str(obj.key) for obj in source.vault.objects("ledger", "base")]
    with pytest.raises(VaultError, match="the store says no"):
        source.snapshot()
    monkeypatch.undo()
    assert [str(obj.key) for obj in source.vault.objects("ledger", "base")] == before
    plan = plan_restore(source.vault, "ledger", Target.parse("latest"))
    assert plan.base.snapshot_id == history.b.snapshot_id


def test_a_store_that_is_away_when_the_manifest_comes_is_waited_for(
    history: "History", monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour's parts are not thrown away for a moment: the same manifest is put again."""
    source = history.source.clone()
    put, tries = type(source.store).put, []

    def failing(self: Any, key: str, *args: Any) -> Any:
        if "/base/" in key:
            tries.append(key)
            if len(tries) < 3:
                raise VaultError("vault.unreachable", "the store is away", "wait")
        return put(self, key, *args)

    monkeypatch.setattr(patience, "_BACKOFF_BEGIN_S", 0.001)
    monkeypatch.setattr(type(source.store), "put", failing)
    result = source.snapshot()
    assert tries == [result.manifest_key] * 3


def test_a_server_whose_own_archive_stands_still_is_backed_up(make_source: "Callable[..., Source]") -> None:
    """The WAL comes from the capture; nobody waits for an archive that may be full or gone."""
    source = make_source(17, archive_mode="on", archive_command="false")
    source.snapshot()
    source.feed()
    assert plan_restore(source.vault, "ledger", Target.parse("latest")).pieces


def test_a_backup_that_breaks_off_leaves_parts_that_nobody_takes_for_one(
    history: "History", monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server goes away in the middle: a clear error, parts without a manifest, named `unfinished` by verify."""
    source = history.source.clone()
    messages = BaseBackup.messages

    def broken(self: BaseBackup, **options: Any) -> Iterator[Any]:
        for count, message in enumerate(messages(self, **options)):
            if count > 700:
                raise ConnectionLostError("the server went away")
            yield message

    original = PartWriter.__init__
    monkeypatch.setattr(
        PartWriter, "__init__", lambda self, *a, **k: original(self, *a, **{**k, "part_bytes": 1 << 19})
    )
    monkeypatch.setattr(BaseBackup, "messages", broken)
    with pytest.raises(SourceError, match="went away") as caught:
        source.snapshot()
    assert caught.value.code == "snapshot.interrupted"
    assert {finding.kind for finding in verify(source.vault).findings} == {"unfinished"}


def test_a_source_that_is_not_there_is_one_clear_error(make_source: "Callable[..., Source]") -> None:
    """Unreachable is the source's error, and the password is in no message."""
    source = make_source()
    dsn = source.dsn
    source.server.stop("immediate")
    with pytest.raises(SourceError) as caught:
        take_snapshot(source.vault, source.dataset, dsn)
    assert caught.value.code == "source.unreachable"
    assert (source.server.password or "x") not in str(caught.value)
    with pytest.raises(PolicyError):
        take_snapshot(source.vault, source.dataset, "postgresql://u:pw@db.example.com/x?sslmode=disable")
