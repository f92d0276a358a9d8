"""The manifest of a base backup: what was taken, from where to where, and which parts hold it.

What belongs here: its fields, their encoding and strict decoding. What stays out: taking a backup (snapshot.py),
choosing one (plan.py), PostgreSQL's own `backup_manifest`, which is kept as one more archive.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from dr_assets.estate.errors import SourceError, VaultError
from dr_assets.stores.postgres.lsn import format_lsn, parse_lsn
from dr_assets.vault.format import canonical, shapes
from dr_assets.vault.format.canonical import Json

FORMAT: Final = "dr_assets.base_backup"
VERSION: Final = 1
# Of an incremental: a program that knows version 1 only would take it for a whole backup.
INCREMENTAL_VERSION: Final = 2
LIMIT_BYTES: Final = 1 << 28
BACKUP_MANIFEST: Final = "backup_manifest"


@dataclass(frozen=True, slots=True)
class Part:
    """One sealed object of the set: its key, the SHA-256 and size of its sealed bytes."""

    key: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Archive:
    """One stream of the server's: the parts [first_part, last_part) in order make `size_bytes` of plaintext.

    `oid` and `location` are a tablespace's; None for the data directory itself and for `backup_manifest`.
    """

    name: str
    oid: int | None
    location: str | None
    size_bytes: int
    first_part: int
    last_part: int


@dataclass(frozen=True, slots=True)
class Parent:
    """What an incremental builds on: its parent's snapshot id and manifest key, and the full's at the chain's begin.

    `depth` counts the incrementals from the full up to and with this one: 1 builds on the full itself.
    """

    snapshot_id: str
    key: str
    full_snapshot_id: str
    depth: int


@dataclass(frozen=True, slots=True)
class BaseManifest:
    """A base backup. LSNs are byte positions, [start_lsn, stop_lsn) is the WAL without which it is worth nothing.

    `parent` is None for a full; an incremental holds what changed since its parent and is worth nothing without it.

    `begin_at` and `end_at` are the source's clock. `next_xid` is the first transaction id not yet given out when the
    backup ended (64 bits, with the epoch). `superuser` is the bootstrap superuser's name, `dbname` the database that
    the heartbeat lives in. `history` is the timeline history file, None on timeline 1. `policy` tells the lock.
    """

    dataset: str
    snapshot_id: str
    system_id: str
    timeline: int
    server_version: int
    start_lsn: int
    stop_lsn: int
    begin_at: datetime
    end_at: datetime
    segment_bytes: int
    data_checksums: bool
    next_xid: int
    superuser: str
    dbname: str
    settings: Mapping[str, str]
    policy: Mapping[str, str]
    history: str | None
    archives: tuple[Archive, ...]
    backup_manifest: Archive
    parts: tuple[Part, ...]
    parent: Parent | None = None

    @property
    def is_incremental(self) -> bool:
        """Whether this needs its parent to be restored."""
        return self.parent is not None

    @property
    def depth(self) -> int:
        """How many incrementals lie between the full and this, this one included; 0 for a full."""
        return 0 if self.parent is None else self.parent.depth

    @property
    def full_snapshot_id(self) -> str:
        """The full at the begin of this one's chain: its own id for a full."""
        return self.snapshot_id if self.parent is None else self.parent.full_snapshot_id

    @property
    def parent_key(self) -> str | None:
        """The parent's manifest in the vault; None for a full."""
        return None if self.parent is None else self.parent.key

    @property
    def parent_snapshot_id(self) -> str | None:
        """The parent's snapshot id; None for a full."""
        return None if self.parent is None else self.parent.snapshot_id

    @property
    def major(self) -> int:
        """The major version of the source: what the data directory is bound to."""
        return self.server_version // 10000

    @property
    def size_bytes(self) -> int:
        """Plaintext bytes of all archives."""
        return sum(archive.size_bytes for archive in (*self.archives, self.backup_manifest))

    @property
    def stored_bytes(self) -> int:
        """Sealed bytes of all parts."""
        return sum(part.size_bytes for part in self.parts)

    def encode(self) -> bytes:
        """Canonical JSON. `parts` is the flat list that `vault verify` knows of any set."""
        return canonical.encode(
            {
                "format": FORMAT,
                **_version_json(self.parent),
                **{name: getattr(self, name) for name in _TEXTS},
                **{name: getattr(self, name) for name in _INTEGERS},
                **{name: format_lsn(getattr(self, name)) for name in _LSNS},
                **{name: canonical.format_time(getattr(self, name)) for name in _TIMES},
                "data_checksums": self.data_checksums,
                "next_xid": str(self.next_xid),
                "history": self.history,
                "settings": dict(self.settings),
                "policy": dict(self.policy),
                "archives": [_archive_json(archive) for archive in self.archives],
                BACKUP_MANIFEST: _archive_json(self.backup_manifest),
                "parts": [{"key": p.key, "sha256": p.sha256, "size_bytes": p.size_bytes} for p in self.parts],
            }
        )


_TEXTS: Final = ("dataset", "snapshot_id", "system_id", "superuser", "dbname")
_INTEGERS: Final = ("timeline", "server_version", "segment_bytes")
_LSNS: Final = ("start_lsn", "stop_lsn")
_TIMES: Final = ("begin_at", "end_at")


def decode(data: bytes, *, name: str) -> BaseManifest:
    """The manifest that `data` encodes; `name` says which in errors.

    Raises VaultError: `vault.newer_version` for a later format, `backup.bad_manifest` for anything that does not add
    up: archives that leave parts out, or use one twice.
    """
    raw = canonical.decode(data, limit_bytes=LIMIT_BYTES, what=f"base backup manifest {name}")
    if raw.get("format") != FORMAT or raw.get("version") not in (VERSION, INCREMENTAL_VERSION):
        raise VaultError(
            "vault.newer_version",
            f"{name} is {raw.get('format')} version {raw.get('version')}, this reads {FORMAT} versions {VERSION} and "
            f"{INCREMENTAL_VERSION}",
            "use the dr-assets release that wrote it, or a newer one",
        )
    try:
        manifest = _from_json(raw)
    except (KeyError, TypeError, ValueError, SourceError) as error:
        raise _bad(name, f"cannot be read ({type(error).__name__}: {error})") from None
    _check_parts(manifest, name)
    return manifest


def _from_json(raw: dict[str, Json]) -> BaseManifest:
    return BaseManifest(
        dataset=shapes.text(raw["dataset"]),
        snapshot_id=shapes.text(raw["snapshot_id"]),
        system_id=shapes.text(raw["system_id"]),
        timeline=shapes.integer(raw["timeline"]),
        server_version=shapes.integer(raw["server_version"]),
        start_lsn=parse_lsn(shapes.text(raw["start_lsn"])),
        stop_lsn=parse_lsn(shapes.text(raw["stop_lsn"])),
        begin_at=canonical.parse_time(raw["begin_at"], "begin_at"),
        end_at=canonical.parse_time(raw["end_at"], "end_at"),
        segment_bytes=shapes.integer(raw["segment_bytes"]),
        superuser=shapes.text(raw["superuser"]),
        dbname=shapes.text(raw["dbname"]),
        data_checksums=raw["data_checksums"] is True,
        next_xid=int(shapes.text(raw["next_xid"])),
        history=None if raw["history"] is None else shapes.text(raw["history"]),
        settings=_texts(raw["settings"]),
        policy=_texts(raw["policy"]),
        archives=tuple(_archive(item) for item in shapes.items(raw["archives"])),
        backup_manifest=_archive(raw[BACKUP_MANIFEST]),
        parts=tuple(_part(shapes.members(item)) for item in shapes.items(raw["parts"])),
        parent=_parent(shapes.members(raw["parent"])) if raw["version"] == INCREMENTAL_VERSION else None,
    )


def _check_parts(manifest: BaseManifest, name: str) -> None:
    position = 0
    for archive in (*manifest.archives, manifest.backup_manifest):
        if archive.first_part != position or archive.last_part < position:
            raise _bad(name, f"says that archive {archive.name} begins with part {archive.first_part}, not {position}")
        position = archive.last_part
    if position != len(manifest.parts):
        raise _bad(name, f"lists {len(manifest.parts)} parts and its archives use {position}")


def _version_json(parent: Parent | None) -> dict[str, Json]:
    """A full is version 1, byte for byte what it was before there were incrementals."""
    if parent is None:
        return {"version": VERSION}
    return {
        "version": INCREMENTAL_VERSION,
        "parent": {
            "snapshot_id": parent.snapshot_id,
            "key": parent.key,
            "full_snapshot_id": parent.full_snapshot_id,
            "depth": parent.depth,
        },
    }


def _parent(raw: dict[str, Json]) -> Parent:
    parent = Parent(
        shapes.text(raw["snapshot_id"]),
        shapes.text(raw["key"]),
        shapes.text(raw["full_snapshot_id"]),
        shapes.integer(raw["depth"]),
    )
    if parent.depth < 1 or (parent.depth == 1) != (parent.snapshot_id == parent.full_snapshot_id):
        raise ValueError(f"depth {parent.depth} does not fit parent {parent.snapshot_id}")
    return parent


def _archive_json(archive: Archive) -> dict[str, Json]:
    return {
        "name": archive.name,
        "oid": archive.oid,
        "location": archive.location,
        "size_bytes": archive.size_bytes,
        "first_part": archive.first_part,
        "last_part": archive.last_part,
    }


def _archive(value: Json) -> Archive:
    raw = shapes.members(value)
    return Archive(
        name=shapes.text(raw["name"]),
        oid=None if raw["oid"] is None else shapes.integer(raw["oid"]),
        location=None if raw["location"] is None else shapes.text(raw["location"]),
        size_bytes=shapes.integer(raw["size_bytes"]),
        first_part=shapes.integer(raw["first_part"]),
        last_part=shapes.integer(raw["last_part"]),
    )


def _part(raw: dict[str, Json]) -> Part:
    return Part(shapes.text(raw["key"]), shapes.text(raw["sha256"]), shapes.integer(raw["size_bytes"]))


def _texts(value: Json) -> dict[str, str]:
    return {name: shapes.text(item) for name, item in shapes.members(value).items()}


def _bad(name: str, found: str) -> VaultError:
    return VaultError(
        "backup.bad_manifest",
        f"{name} {found}",
        "restore from an older base backup (--as-of), and run `dr-assets vault verify`",
    )
