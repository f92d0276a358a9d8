"""What lies where in a bundle, to the byte (docs/format.md, Bundles).

What belongs here: names, the index and its lines, and their checks. What stays out: reading and writing files.

    README.txt                      how to verify it, without us
    trust.json                      the signers that the exporter believed
    volume-0001/contents.jsonl      a line for each object, in the order they were written
    volume-0001/objects/{name}      the sealed bytes under their name
    bundle.json                     written last, signed: what is whole has it
    unfinished.json                 there as long as it is not whole
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.vault.format import canonical
from dr_assets.vault.format.canonical import Json, format_time, malformed, parse_hex, parse_time
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.log.names import is_log_name
from dr_assets.vault.signing import Signer, Trust
from dr_assets.vault.storage import Lock

KIND: Final = "dr_assets bundle v1"
DOMAIN: Final = b"dr_assets bundle v1"
BUNDLE: Final = "bundle.json"
UNFINISHED: Final = "unfinished.json"
CONTENTS: Final = "contents.jsonl"
OBJECTS: Final = "objects"
TRUST: Final = "trust.json"
README: Final = "README.txt"
BUNDLE_LIMIT_BYTES: Final = 16 << 20
LINE_LIMIT_BYTES: Final = 4096

_VOLUME: Final = re.compile(r"volume-[0-9]{4,}", re.ASCII)

README_TEXT: Final = """\
This folder is a copy of the vault of a dr_assets estate: sealed objects as they lie in the object store.
It is whole if `bundle.json` is here. It holds no key that opens anything.

volume-*/objects/{name}     one sealed object; the last 32 characters of a name are the beginning of its SHA-256
volume-*/contents.jsonl     name, SHA-256, size and lock of each object of the volume, one JSON object a line
bundle.json                 the volumes, with the SHA-256 of each contents.jsonl, signed by the exporter
trust.json                  the public keys that the exporter believed. Compare it with your own copy before you do

To check every byte with nothing of ours:

    for v in volume-*; do
      sed -E 's/.*"name":"([^"]*)".*"sha256":"([0-9a-f]*)".*/\\2  objects\\/\\1/' "$v/contents.jsonl" |
        (cd "$v" && sha256sum --quiet -c -) || echo "$v IS DAMAGED"
      sha256sum "$v/contents.jsonl"
    done                                  # and compare the digests printed with those in bundle.json

To check signatures, chains and the decrypted content, and to restore, with the estate's declarations and keys:

    dr-assets vault verify --from-bundle DIR
    dr-assets restore DATASET --from-bundle DIR --into FOLDER
    dr-assets vault import DIR --vault NAME

The format is described in docs/format.md of dr_assets, from which a reader can be written.
"""


@dataclass(frozen=True, slots=True)
class Line:
    """One object: its name, SHA-256 (hex) and size, and what the source said of it at the export.

    `stored_at` is the source's clock at the put.
    """

    name: str
    sha256: str
    size_bytes: int
    stored_at: datetime
    lock: Lock | None
    held: bool = False

    def encoded(self) -> bytes:
        """With its line feed."""
        lock: Json = None
        if self.lock is not None:
            lock = {"mode": self.lock.mode, "retain_until": format_time(self.lock.retain_until)}
        raw: dict[str, Json] = {
            "name": self.name,
            "sha256": self.sha256,
            "size_bytes": self.size_bytes,
            "stored_at": format_time(self.stored_at),
            "lock": lock,
            "held": self.held,
        }
        return canonical.encode(raw) + b"\n"


def parse_line(data: bytes, *, what: str) -> Line:
    """The line; raises VaultError `vault.malformed`, also for a name that is none of ours (and leads elsewhere)."""
    raw = canonical.decode(data.removesuffix(b"\n"), limit_bytes=LINE_LIMIT_BYTES, what=what)
    if raw.keys() != {"name", "sha256", "size_bytes", "stored_at", "lock", "held"}:
        raise malformed(f"{what}: unknown or missing fields")
    name, size_bytes, held = raw["name"], raw["size_bytes"], raw["held"]
    if not isinstance(name, str) or not is_name_of_ours(name):
        raise malformed(f"{what}: a name that is none of ours")
    if not isinstance(size_bytes, int) or isinstance(size_bytes, bool) or size_bytes < 0 or not isinstance(held, bool):
        raise malformed(f"{what}: a field has the wrong type")
    return Line(
        name, parse_hex(raw["sha256"], 32, f"{what}: sha256"), size_bytes,
        parse_time(raw["stored_at"], f"{what}: stored_at"), _lock(raw["lock"], what), held,
    )  # fmt: skip


def is_name_of_ours(name: str) -> bool:
    """Whether a name may be a file of a bundle: a sealed object's, a key object's or the log's."""
    key = ObjectKey.parse(name)
    if key is not None:
        return str(key) == name
    return is_log_name(name) and not any(part in {"", ".", ".."} for part in name.split("/"))


def _lock(raw: Json, what: str) -> Lock | None:
    if raw is None:
        return None
    if not isinstance(raw, dict):
        raise malformed(f"{what}: no lock")
    until = parse_time(raw.get("retain_until"), f"{what}: retain_until")
    match raw.get("mode"):
        case "COMPLIANCE":
            return Lock("COMPLIANCE", until)
        case "GOVERNANCE":
            return Lock("GOVERNANCE", until)
    raise malformed(f"{what}: no lock")


@dataclass(frozen=True, slots=True)
class Volume:
    """One folder of a bundle: what fits on one tape. `contents_sha256` is that of its contents.jsonl."""

    name: str
    objects: int
    size_bytes: int
    contents_sha256: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """The index. `as_of` is the source's clock: what was put later is not in it. `lacks`: damaged at the source."""

    estate: str
    vault: str
    as_of: datetime
    datasets: tuple[str, ...]
    volumes: tuple[Volume, ...]
    lacks: tuple[str, ...] = ()

    def encoded(self, signer: Signer | None) -> bytes:
        """Canonical JSON with the exporter's signature, or without where it has no key."""
        fields = self._fields()
        fields["signer_id"] = None if signer is None else signer.signer_id
        fields["signature"] = None if signer is None else signer.sign(DOMAIN, canonical.encode(fields)).hex()
        return canonical.encode(fields)

    def _fields(self) -> dict[str, Json]:
        return {
            "kind": KIND,
            "estate": self.estate,
            "vault": self.vault,
            "as_of": format_time(self.as_of),
            "datasets": list(self.datasets),
            "lacks": list(self.lacks),
            "volumes": [
                {
                    "name": volume.name,
                    "objects": volume.objects,
                    "size_bytes": volume.size_bytes,
                    "contents_sha256": volume.contents_sha256,
                }
                for volume in self.volumes
            ],
        }


def parse_bundle(data: bytes, trust: Trust | None, *, what: str) -> Bundle:
    """The index, its signature verified where `trust` is given: then one without a signature is none of ours.

    Raises VaultError `vault.malformed`, `vault.untrusted_signer`, `vault.bad_signature`, `bundle.unsigned`.
    """
    raw = canonical.decode(data, limit_bytes=BUNDLE_LIMIT_BYTES, what=what)
    if raw.get("kind") != KIND:
        raise malformed(f"{what}: no bundle of version 1")
    signature = raw.pop("signature", None)
    if signature is None and trust is not None:
        raise VaultError(
            "bundle.unsigned", f"{what}: nobody signed it", "whoever had the folder may have shortened it: take another"
        )
    if trust is not None:
        told = bytes.fromhex(parse_hex(signature, 64, f"{what}: signature"))
        trust.verify(str(raw.get("signer_id")), told, DOMAIN, canonical.encode(raw), name=what)
    return Bundle(
        estate=_text(raw, "estate", what),
        vault=_text(raw, "vault", what),
        as_of=parse_time(raw.get("as_of"), f"{what}: as_of"),
        datasets=_texts(raw, "datasets", what),
        volumes=tuple(_volume(each, what) for each in _list(raw, "volumes", what)),
        lacks=_texts(raw, "lacks", what),
    )


def _volume(raw: Json, what: str) -> Volume:
    if not isinstance(raw, dict):
        raise malformed(f"{what}: no volume")
    name, objects, size_bytes = raw.get("name"), raw.get("objects"), raw.get("size_bytes")
    if not isinstance(name, str) or not _VOLUME.fullmatch(name):
        raise malformed(f"{what}: no volume's name")
    if not isinstance(objects, int) or not isinstance(size_bytes, int):
        raise malformed(f"{what}: no volume")
    return Volume(name, objects, size_bytes, parse_hex(raw.get("contents_sha256"), 32, what))


def _text(raw: Mapping[str, Json], name: str, what: str) -> str:
    value = raw.get(name)
    if not isinstance(value, str):
        raise malformed(f"{what}: {name} is no text")
    return value


def _list(raw: Mapping[str, Json], name: str, what: str) -> list[Json]:
    value = raw.get(name)
    if not isinstance(value, list):
        raise malformed(f"{what}: {name} is no list")
    return value


def _texts(raw: Mapping[str, Json], name: str, what: str) -> tuple[str, ...]:
    return tuple(str(each) for each in _list(raw, name, what))
