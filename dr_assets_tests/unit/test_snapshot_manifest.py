import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr_assets.estate.errors import VaultError
from dr_assets.stores.postgres import base_manifest
from dr_assets.stores.postgres.base_manifest import Archive, BaseManifest, Parent, Part

MANIFEST = BaseManifest(
    dataset="ledger",
    snapshot_id="20260301t120000z-0a1b2c3d",
    system_id="7710780191527038942",
    timeline=3,
    server_version=170010,
    start_lsn=0x1_0000_0028,
    stop_lsn=0x1_0000_0158,
    begin_at=datetime(2026, 3, 1, 12, 0, 0, 1, tzinfo=UTC),
    end_at=datetime(2026, 3, 1, 12, 1, tzinfo=UTC),
    segment_bytes=16 << 20,
    data_checksums=True,
    next_xid=(1 << 40) + 7,
    superuser="postgres",
    dbname="ledger",
    settings={"max_connections": "100"},
    policy={"lock": "compliance"},
    history="1\t0/3000000\tno recovery target specified\n",
    archives=(Archive("16384.tar", 16384, "/srv/fast", 100, 0, 1), Archive("base.tar", None, None, 9 << 33, 1, 3)),
    backup_manifest=Archive("backup_manifest", None, None, 5, 3, 4),
    parts=tuple(Part(f"e/d/base-x/s/1/{n}", f"{n:064x}", 10 + n) for n in range(4)),
)


@given(st.integers(0, 1 << 63), st.integers(0, 1 << 62), st.one_of(st.none(), st.text(max_size=20)))
def test_a_manifest_reads_back_as_it_was_written(lsn: int, xid: int, history: str | None) -> None:
    """Every field survives, large numbers included."""
    manifest = replace(MANIFEST, start_lsn=lsn, next_xid=xid, history=history)
    assert base_manifest.decode(manifest.encode(), name="m") == manifest


def test_a_full_is_written_as_it_was_before_there_were_incrementals() -> None:
    """Version 1 and no word of a parent, so that older programs restore it."""
    raw = json.loads(MANIFEST.encode())
    assert raw["version"] == 1
    assert "parent" not in raw
    assert not MANIFEST.is_incremental
    assert (MANIFEST.depth, MANIFEST.full_snapshot_id) == (0, MANIFEST.snapshot_id)


def test_an_incremental_is_a_version_that_older_programs_refuse() -> None:
    """It says what it builds on, reads back so, and cannot be taken for a full by who never heard of incrementals."""
    manifest = replace(MANIFEST, parent=Parent("p", "e/ledger/base/s/1/x", "f", 3))
    assert json.loads(manifest.encode())["version"] == 2
    assert base_manifest.decode(manifest.encode(), name="m") == manifest
    assert (manifest.depth, manifest.parent_snapshot_id, manifest.full_snapshot_id) == (3, "p", "f")


def test_its_parts_are_the_flat_list_that_any_verifier_reads() -> None:
    """The convention of all sets: key, digest and size of every sealed object."""
    assert json.loads(MANIFEST.encode())["parts"][2] == {
        "key": "e/d/base-x/s/1/2",
        "sha256": f"{2:064x}",
        "size_bytes": 12,
    }
    assert MANIFEST.stored_bytes == 46
    assert MANIFEST.major == 17


def changed(**fields: object) -> bytes:
    """The encoded manifest with other values in its JSON."""
    raw = json.loads(MANIFEST.encode()) | fields
    return json.dumps(raw, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (changed(version=3), "vault.newer_version"),
        (changed(version=2), "backup.bad_manifest"),
        (
            changed(version=2, parent={"snapshot_id": "a", "key": "k", "full_snapshot_id": "a", "depth": 2}),
            "backup.bad_manifest",
        ),
        (
            changed(version=2, parent={"snapshot_id": "b", "key": "k", "full_snapshot_id": "a", "depth": 1}),
            "backup.bad_manifest",
        ),
        (
            changed(version=2, parent={"snapshot_id": "a", "key": "k", "full_snapshot_id": "a", "depth": 0}),
            "backup.bad_manifest",
        ),
        (changed(format="something.else"), "vault.newer_version"),
        (changed(parts=[]), "backup.bad_manifest"),
        (changed(start_lsn="banana"), "backup.bad_manifest"),
        (changed(archives=None), "backup.bad_manifest"),
        (changed(next_xid=7), "backup.bad_manifest"),
        (changed(timeline=-1), "backup.bad_manifest"),
        (changed(begin_at="yesterday"), "vault.malformed"),
        (b"{}", "vault.newer_version"),
        (b"\xff", "vault.malformed"),
    ],
)
def test_a_manifest_that_does_not_add_up_is_refused(data: bytes, code: str) -> None:
    """A newer format asks for a newer release; anything else is damage; never a traceback."""
    with pytest.raises(VaultError) as caught:
        base_manifest.decode(data, name="m")
    assert caught.value.code == code


def test_archives_must_use_every_part_once_and_in_order() -> None:
    """A part between two archives, or used by two, is no backup."""
    for first, last in ((2, 3), (0, 3), (1, 2)):
        archives = (MANIFEST.archives[0], replace(MANIFEST.archives[1], first_part=first, last_part=last))
        with pytest.raises(VaultError, match="part"):
            base_manifest.decode(replace(MANIFEST, archives=archives).encode(), name="m")
