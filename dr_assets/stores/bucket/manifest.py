"""The manifest of one run of copying: what was listed and when, what the run sealed, what it rests on.

What belongs here: its fields, encoding and strict decoding. What stays out: rows (inventory.py), making a run
(copy.py), following manifests from one to the next (runs.py).

A full's inventory holds every version that the listing showed, and those that had vanished since the run before; an
incremental's only what came and went since its parent. A full may refer to parts of earlier runs: no document is copied
twice because a week has passed. So it names them, and locks them for as long as itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.vault.format import canonical, shapes
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.format.sizes import MANIFEST_LIMIT_BYTES

FORMAT: Final = "dr_assets.bucket_copy"
VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Part:
    """One sealed object of the run: its key, the SHA-256 and size of its sealed bytes."""

    key: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Parent:
    """What an incremental builds on; `depth` counts from the full: 1 builds on the full itself."""

    snapshot_id: str
    key: str
    full_snapshot_id: str
    depth: int


@dataclass(frozen=True, slots=True)
class Tally:
    """Rows by state, and the documents' bytes; what a listing showed, or what an inventory holds."""

    versions: int = 0
    markers: int = 0
    size_bytes: int = 0

    def to_json(self) -> dict[str, Json]:
        """For manifests and facts."""
        return {"versions": self.versions, "markers": self.markers, "size_bytes": self.size_bytes}

    @classmethod
    def of(cls, raw: Json) -> "Tally":
        """From `to_json`."""
        if not isinstance(raw, dict):
            raise TypeError("no tally")
        return cls(shapes.integer(raw["versions"]), shapes.integer(raw["markers"]), shapes.integer(raw["size_bytes"]))


@dataclass(frozen=True, slots=True)
class RunManifest:
    """One run. `listing_begin_at` is the source's clock: what its listing then showed is here, if `is_complete`.

    `is_whole_listing` is False for a run that looked at single names only, which events had told of. `names_check`
    tells the key of the names' digests. `inventory` are the keys of the shards in order, which are among `parts`;
    `refers` are parts of earlier runs that some row of a full lies in.
    """

    dataset: str
    snapshot_id: str
    system_id: str
    bucket: str
    prefix: str
    is_versioned: bool
    is_whole_listing: bool
    is_complete: bool
    listing_begin_at: datetime
    listing_end_at: datetime
    end_at: datetime
    names_check: str
    subject_kind: str
    listed: Tally
    held: Tally
    policy: Mapping[str, str]
    inventory: tuple[str, ...]
    refers: tuple[str, ...]
    parts: tuple[Part, ...]
    parent: Parent | None = None

    @property
    def is_full(self) -> bool:
        """Whether its inventory needs none before it."""
        return self.parent is None

    @property
    def depth(self) -> int:
        """How many incrementals lead here from the full."""
        return 0 if self.parent is None else self.parent.depth

    @property
    def full_snapshot_id(self) -> str:
        """The full at the chain's begin."""
        return self.snapshot_id if self.parent is None else self.parent.full_snapshot_id

    @property
    def stored_bytes(self) -> int:
        """Sealed bytes of the run's own parts."""
        return sum(part.size_bytes for part in self.parts)

    def encode(self) -> bytes:
        """Canonical JSON. `parts` is the flat list that `vault verify` knows of any set."""
        parent = self.parent
        return canonical.encode(
            {
                "format": FORMAT,
                "version": VERSION,
                **{name: getattr(self, name) for name in (*_TEXTS, *_FLAGS)},
                **{name: canonical.format_time(getattr(self, name)) for name in _TIMES},
                "listed": self.listed.to_json(),
                "held": self.held.to_json(),
                "policy": dict(self.policy),
                "inventory": list(self.inventory),
                "refers": list(self.refers),
                "parts": [{"key": p.key, "sha256": p.sha256, "size_bytes": p.size_bytes} for p in self.parts],
                "parent": None
                if parent is None
                else {
                    "snapshot_id": parent.snapshot_id,
                    "key": parent.key,
                    "full_snapshot_id": parent.full_snapshot_id,
                    "depth": parent.depth,
                },
            }
        )


_TEXTS: Final = ("dataset", "snapshot_id", "system_id", "bucket", "prefix", "names_check", "subject_kind")
_FLAGS: Final = ("is_versioned", "is_whole_listing", "is_complete")
_TIMES: Final = ("listing_begin_at", "listing_end_at", "end_at")


def decode(data: bytes, *, name: str) -> RunManifest:
    """The manifest that `data` encodes. Raises VaultError `vault.newer_version`, `backup.bad_manifest`."""
    raw = canonical.decode(data, limit_bytes=MANIFEST_LIMIT_BYTES, what=f"bucket copy's manifest {name}")
    if raw.get("format") != FORMAT or raw.get("version") != VERSION:
        raise VaultError(
            "vault.newer_version",
            f"{name} is {raw.get('format')} version {raw.get('version')}, this reads {FORMAT} version {VERSION}",
            "use the dr-assets release that wrote it, or a newer one",
        )
    try:
        manifest = _from_json(raw)
    except (KeyError, TypeError, ValueError) as error:
        raise _bad(name, f"cannot be read ({type(error).__name__}: {error})") from None
    own = {part.key for part in manifest.parts}
    if not own.issuperset(manifest.inventory):
        raise _bad(name, "names shards of its inventory that are none of its parts")
    return manifest


def _from_json(raw: dict[str, Json]) -> RunManifest:
    return RunManifest(
        dataset=shapes.text(raw["dataset"]),
        snapshot_id=shapes.text(raw["snapshot_id"]),
        system_id=shapes.text(raw["system_id"]),
        bucket=shapes.text(raw["bucket"]),
        prefix=shapes.text(raw["prefix"]),
        is_versioned=raw["is_versioned"] is True,
        is_whole_listing=raw["is_whole_listing"] is True,
        is_complete=raw["is_complete"] is True,
        listing_begin_at=canonical.parse_time(raw["listing_begin_at"], "listing_begin_at"),
        listing_end_at=canonical.parse_time(raw["listing_end_at"], "listing_end_at"),
        end_at=canonical.parse_time(raw["end_at"], "end_at"),
        names_check=shapes.text(raw["names_check"]),
        subject_kind=shapes.text(raw["subject_kind"]),
        listed=Tally.of(raw["listed"]),
        held=Tally.of(raw["held"]),
        policy={name: shapes.text(value) for name, value in shapes.members(raw["policy"]).items()},
        inventory=tuple(shapes.text(item) for item in shapes.items(raw["inventory"])),
        refers=tuple(shapes.text(item) for item in shapes.items(raw["refers"])),
        parts=tuple(_part(shapes.members(item)) for item in shapes.items(raw["parts"])),
        parent=None if raw["parent"] is None else _parent(shapes.members(raw["parent"])),
    )


def _part(raw: dict[str, Json]) -> Part:
    return Part(shapes.text(raw["key"]), shapes.text(raw["sha256"]), shapes.integer(raw["size_bytes"]))


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


def _bad(name: str, found: str) -> VaultError:
    return VaultError(
        "backup.bad_manifest", f"{name} {found}", "restore to an earlier time, and run `dr-assets vault verify`"
    )
