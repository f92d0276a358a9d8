"""Escrow: all data keys under an offline age recipient, so that the loss of every provider isn't the loss of the vault.

What belongs here: wrapping, opening, and the proof by drill that it opens. What stays out: where the file and the
identity are kept (docs/keys.md, Escrow), and the signing key, which nobody needs to read a vault.

The file is plain age (age-encryption.org/v1, X25519): any age program opens it. Inside is signed canonical JSON
(docs/format.md, Escrow).
"""

import hashlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import pyrage
from pyrage import x25519

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.vault.facts import facts, record_fact
from dr_assets.vault.format import canonical
from dr_assets.vault.format.canonical import Json, malformed, parse_hex, parse_time
from dr_assets.vault.format.header import Header
from dr_assets.vault.format.segment import open_sealed
from dr_assets.vault.keys.derive import KEY_BYTES, DataKey
from dr_assets.vault.keys.life.choice import ESTATE
from dr_assets.vault.keys.life.listing import datasets_with_keys, header_of_ours, list_keys
from dr_assets.vault.signing import Signer, Trust, signer_id_of
from dr_assets.vault.vault import StoredObject, Vault

KIND: Final = "dr_assets key escrow v1"
FACT: Final = "escrow"
LIMIT_BYTES: Final = 16 << 20
SAMPLES: Final = 4
_FIELDS: Final = frozenset("created_at data_keys estate kind more signature signer_id trusted".split())  # noqa: SIM905 - as in key_object.py
_IDENTITY: Final = "AGE-SECRET-KEY-1"


@dataclass(frozen=True, slots=True)
class Escrow:
    """What was in the file. `more` is what else an offline opening needs, by name (the key of subject ids)."""

    estate: str
    created_at: datetime
    data_keys: Mapping[str, Mapping[str, DataKey]] = field(repr=False)
    trust: Trust
    more: Mapping[str, str] = field(repr=False)

    def key_of(self, header: Header) -> DataKey:
        """The key that a header names; raises VaultError `escrow.no_key`."""
        found = self.data_keys.get(header.dataset, {}).get(header.key_id)
        if found is None:
            raise VaultError(
                "escrow.no_key",
                f"the escrow of {self.created_at:%Y-%m-%d} has no data key {header.key_id} of {header.dataset}",
                "`dr-assets keys export` anew after every rotation",
            )
        return found


@dataclass(frozen=True, slots=True)
class Drilled:
    """What a drill saw. `lacking` are data keys of the vault that the escrow has not, as `dataset/key id`."""

    opened: Mapping[str, int]
    lacking: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether the escrow alone opens every dataset."""
        return not self.lacking


def export(
    vault: Vault,
    recipient: str,
    more: Mapping[str, str] | None = None,
    *,
    save: Callable[[bytes], None] | None = None,
) -> bytes:
    """All data keys of the vault, signed, encrypted to `recipient` (`age1…`), and a fact of kind `escrow` that says so.

    `save` is called before that is recorded, so that no export is on record that nobody has.

    Raises PolicyError `escrow.bad_recipient`, `vault.read_only`; VaultError for a key that doesn't open: an escrow that
    lacks one would be found out too late.
    """
    try:
        to = x25519.Recipient.from_str(recipient)
    except pyrage.RecipientError:
        raise PolicyError(
            "escrow.bad_recipient",
            "that is no age X25519 recipient",
            "`age-keygen` on an offline machine prints one that begins with age1",
        ) from None
    if vault.signer is None:
        raise PolicyError("vault.read_only", "opened without a signing key", "open it with signing=True")
    vault.keys.for_writing(ESTATE)  # the fact that tells of this export is sealed under a key that has to be in it
    keys = {
        dataset: {row.key_id: vault.keys.by_id(dataset, row.key_id) for row in list_keys(vault, dataset)}
        for dataset in datasets_with_keys(vault)
    }
    data: bytes = pyrage.encrypt(_payload(vault, vault.signer, keys, more or {}), [to])
    if save is not None:
        save(data)
    _record(vault, "exported", data, recipient=recipient, keys=_ids(keys))
    return data


def open_escrow(data: bytes, identity: str, trust: Trust | None = None) -> Escrow:
    """What an escrow holds, by the text of an age identity file; its signer must be trusted, by `trust` if given.

    Without `trust` the signer is one that the escrow itself lists: that proves only that nobody altered it since.
    Raises PolicyError `escrow.bad_identity`, VaultError `escrow.wrong_identity`, `vault.malformed`,
    `vault.untrusted_signer`, `vault.bad_signature`.
    """
    try:
        payload = pyrage.decrypt(data, [parse_identity(identity)])
    except pyrage.DecryptError:
        raise VaultError(
            "escrow.wrong_identity",
            "the identity does not open this escrow, or the file was damaged",
            "find the identity whose recipient the fact `escrow` names, or another copy of the file",
        ) from None
    return _parse(payload, trust)


def drill(vault: Vault, data: bytes, identity: str) -> Drilled:
    """Open the escrow, and with nothing else a few objects of every dataset; recorded as a fact of kind `escrow`.

    No provider is asked for any key but the one that the fact is sealed under. Raises PolicyError
    `escrow.other_estate`, and as `open_escrow` and `open_sealed` do.
    """
    escrow = open_escrow(data, identity, vault.trust)
    _require_own(vault, escrow)
    opened: dict[str, int] = {}
    lacking: list[str] = []
    for dataset in datasets_with_keys(vault):
        known = escrow.data_keys.get(dataset, {})
        lacking += [f"{dataset}/{row.key_id}" for row in list_keys(vault, dataset) if row.key_id not in known]
        for obj in _sample(vault, dataset, known):
            open_sealed(vault.fetch(obj), trust=escrow.trust, key_of=escrow.key_of, key=obj.key)
            opened[dataset] = opened.get(dataset, 0) + 1
    done = Drilled(opened, tuple(lacking))
    if vault.signer is not None:
        _record(vault, "drilled", data, opened=dict[str, Json](opened), lacking=list[Json](lacking), ok=done.ok)
    return done


def recover(vault: Vault, escrow: Escrow) -> list[str]:
    """Wrap every escrowed data key by today's providers: how a vault goes on whose providers are all lost.

    Nothing that is locked is touched. Killed anywhere, run it again. Returns `dataset/key id` of each.

    Raises PolicyError `escrow.other_estate` and what `KeyRing.complete` raises.
    """
    _require_own(vault, escrow)
    for dataset, keys in escrow.data_keys.items():
        vault.keys.learn(dataset, keys.values())  # what was decided of the keys lies sealed under these very keys
    done: list[str] = []
    for dataset, keys in sorted(escrow.data_keys.items()):
        for key_id, data_key in sorted(keys.items()):
            vault.keys.complete(dataset, key_id, data_key)
            done.append(f"{dataset}/{key_id}")
    _record(vault, "recovered", b"", keys=_ids(escrow.data_keys))
    return done


def lacking(vault: Vault) -> list[str]:
    """Data keys that write and are in no export that the vault knows of, as `dataset/key id`."""
    exported: set[str] = set()
    for fact in facts(vault, ESTATE, FACT):
        keys = fact.body.get("keys")
        if fact.body.get("event") == "exported" and isinstance(keys, dict):
            exported = {
                f"{dataset}/{key_id}" for dataset, ids in keys.items() if isinstance(ids, list) for key_id in ids
            }
    rows = [row for dataset in datasets_with_keys(vault) for row in list_keys(vault, dataset)]
    return [name for row in rows if row.is_writing and (name := f"{row.dataset}/{row.key_id}") not in exported]


def _require_own(vault: Vault, escrow: Escrow) -> None:
    if escrow.estate != vault.estate:
        raise PolicyError(
            "escrow.other_estate",
            f"the escrow is of estate {escrow.estate}, the vault of {vault.estate}",
            "take the file that `dr-assets keys export` wrote for this estate",
        )


def _payload(vault: Vault, signer: Signer, keys: Mapping[str, Mapping[str, DataKey]], more: Mapping[str, str]) -> bytes:
    listed: dict[str, Json] = {
        dataset: {key_id: key.secret.hex() for key_id, key in found.items()} for dataset, found in keys.items()
    }
    fields: dict[str, Json] = {
        "created_at": canonical.format_time(vault.clock()),
        "data_keys": listed,
        "estate": vault.estate,
        "kind": KIND,
        "more": dict[str, Json](more),
        "signer_id": signer.signer_id,
        "trusted": list[Json](sorted(key.hex() for key in vault.trust.public_keys.values())),
    }
    return canonical.encode(fields | {"signature": signer.sign(KIND.encode("ascii"), _signed(fields)).hex()})


def _signed(fields: Mapping[str, Json]) -> bytes:
    """What is signed: a digest, since a key service takes short messages only and keys become many with the years."""
    return hashlib.sha256(canonical.encode(dict(fields))).digest()


def _parse(payload: bytes, trust: Trust | None) -> Escrow:
    raw = canonical.decode(payload, limit_bytes=LIMIT_BYTES, what="the escrow")
    if raw.keys() != _FIELDS or raw["kind"] != KIND:
        raise malformed("the escrow: no key escrow of version 1")
    signature = bytes.fromhex(parse_hex(raw.pop("signature"), 64, "the escrow: signature"))
    listed, keys, more = raw["trusted"], raw["data_keys"], raw["more"]
    if not isinstance(listed, list) or not isinstance(keys, dict) or not isinstance(more, dict):
        raise malformed("the escrow: a field has the wrong type")
    public_keys = [bytes.fromhex(parse_hex(key, 32, "the escrow: trusted")) for key in listed]
    own = Trust({signer_id_of(key): key for key in public_keys})
    signer_id = parse_hex(raw["signer_id"], 16, "the escrow: signer_id")
    (trust or own).verify(signer_id, signature, KIND.encode("ascii"), _signed(raw), name="the escrow")
    data_keys = {dataset: _data_keys(found) for dataset, found in keys.items()}
    created_at = parse_time(raw["created_at"], "the escrow: created_at")
    return Escrow(str(raw["estate"]), created_at, data_keys, own, {name: str(text) for name, text in more.items()})


def _data_keys(found: Json) -> dict[str, DataKey]:
    if not isinstance(found, dict):
        raise malformed("the escrow: a field has the wrong type")
    keys = {
        key_id: DataKey.of(bytes.fromhex(parse_hex(secret, KEY_BYTES, "the escrow: data key")))
        for key_id, secret in found.items()
    }
    if any(key.key_id != key_id for key_id, key in keys.items()):
        raise malformed("the escrow: a data key is not the one it says")
    return keys


def parse_identity(text: str) -> x25519.Identity:
    """The identity in the text of an age identity file. Raises PolicyError `escrow.bad_identity`."""
    lines = [line.strip() for line in text.splitlines() if line.strip().upper().startswith(_IDENTITY)]
    try:
        return x25519.Identity.from_str(lines[0])
    except (IndexError, pyrage.IdentityError):
        raise PolicyError(
            "escrow.bad_identity",
            "the file holds no age X25519 identity",
            "it is what `age-keygen` wrote: a line that begins with AGE-SECRET-KEY-1",
        ) from None


def _sample(vault: Vault, dataset: str, known: Mapping[str, DataKey]) -> list[StoredObject]:
    """The newest object of the dataset and a few others at random, of those whose key the escrow should have."""
    objects = list(vault.objects(dataset))
    if not objects:
        return []
    chosen = random.SystemRandom().sample(objects, min(SAMPLES, len(objects)))
    newest = sorted(objects, key=lambda obj: obj.modified_at, reverse=True)
    ours = next(([obj] for obj in newest if header_of_ours(vault, obj) is not None), [])
    headers = {obj: header_of_ours(vault, obj) for obj in [*ours, *chosen]}
    return [obj for obj, header in headers.items() if header is not None and header.key_id in known]


def _ids(keys: Mapping[str, Mapping[str, DataKey]]) -> dict[str, Json]:
    return {dataset: list[Json](sorted(found)) for dataset, found in keys.items()}


def _record(vault: Vault, event: str, data: bytes, **more: Json) -> None:
    digest = {"sha256": hashlib.sha256(data).hexdigest()} if data else {}
    record_fact(vault, ESTATE, FACT, {"event": event} | digest | more)
