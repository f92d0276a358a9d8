"""Damage, planned from a seed: what to do beneath or on top of the lock, and what has to be named for it.

What belongs here: the plans, and how to carry them out on a MemoryStore. What stays out: the proxy that carries them
out in front of a real store (s3_proxy.py).
"""

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta

from dr_assets.estate.errors import VaultError
from dr_assets.vault.format.envelope import split_head
from dr_assets.vault.format.header import Header
from dr_assets.vault.format.keys import KEYS, ObjectKey
from dr_assets.vault.format.segment import prepare
from dr_assets.vault.keys.derive import DataKey
from dr_assets.vault.keys.memory_provider import MemoryKeyProvider
from dr_assets.vault.signing import Signer
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import StoredObject, Vault
from dr_assets.vault.verify import VerifyReport, verify
from dr_assets_tests.faults.vault.sample import Sample


@dataclass
class Plan:
    """`beneath` replaces bytes (None: the object is gone), `on_top` adds versions (None: a delete marker).

    `named` has to be the name of a finding: of an error where `error`, else of a notice and of no error at all.
    """

    named: str
    error: bool = True
    beneath: dict[str, bytes | None] = field(default_factory=dict)
    on_top: list[tuple[str, bytes | None]] = field(default_factory=list)
    wrong_folder: bool = False


def flip(sample: Sample, chance: random.Random) -> Plan:
    """One bit of one object."""
    name, data = _any(sample, chance)
    changed = bytearray(data)
    changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return Plan(name, beneath={name: bytes(changed)})


def cut(sample: Sample, chance: random.Random) -> Plan:
    """One object ends early, at times at nothing."""
    name, data = _any(sample, chance)
    return Plan(name, beneath={name: data[: chance.choice([0, chance.randrange(len(data)), len(data) - 1])]})


def delete(sample: Sample, chance: random.Random) -> Plan:
    """One object is gone as if it had never been."""
    name, _ = _any(sample, chance)
    return Plan(name, beneath={name: None})


def swap(sample: Sample, chance: random.Random) -> Plan:
    """Two objects' bytes change places."""
    one, other = chance.sample(sorted(sample.sealed), 2)
    return Plan(one, beneath={one: sample.sealed[other], other: sample.sealed[one]})


def replay(sample: Sample, chance: random.Random) -> Plan:
    """A newer object's bytes are replaced by an older one's of the same stream: WAL, or a fact."""
    places: dict[str, list[str]] = {}
    for name in sorted(sample.sealed):
        places.setdefault(name.rpartition("/")[0], []).append(name)
    names = chance.choice([names for names in places.values() if len(names) > 1])
    newer = chance.randrange(1, len(names))
    return Plan(names[newer], beneath={names[newer]: sample.sealed[names[chance.randrange(newer)]]})


def duplicate(sample: Sample, chance: random.Random) -> Plan:
    """An object's bytes again, under a name of good form with the right digest that seems to go on with the stream."""
    name, data = _any(sample, chance)
    key = ObjectKey.parse(name)
    assert key is not None
    length = chance.randint(1, 999)
    copy = replace(key, first=sample.next_position, last=sample.next_position + length)
    if key.stream == KEYS:
        copy = replace(key, timeline=key.timeline + chance.randint(1, 9))
    return Plan(str(copy), on_top=[(str(copy), data)])


def swapped_header(sample: Sample, chance: random.Random) -> Plan:
    """One object's header before another's content; at times with all digests made to fit."""
    one, other = chance.sample([name for name in sorted(sample.sealed) if f"/{KEYS}/" not in name], 2)
    head = sample.sealed[one][: split_head(sample.sealed[one])[2]]
    body = sample.sealed[other][split_head(sample.sealed[other])[2] :]
    if chance.random() < 0.5:
        return Plan(other, beneath={other: head + body})
    content = hashlib.sha256(head + body[:-96]).digest()
    data = head + body[:-96] + content + body[-64:]
    key = split_head(data)[0].key(hashlib.sha256(data).hexdigest())
    return Plan(str(key), on_top=[(str(key), data)])


def wrong_key(sample: Sample, chance: random.Random) -> Plan:
    """Sealed with another key than the header names; or the whole vault opened with another keys folder."""
    name, header = _any_sealed(sample, chance)
    if chance.random() < 0.3:
        return Plan(name, wrong_folder=True)
    signer = sample.vault.signer
    assert signer is not None
    sealed = _resealed(header, signer, DataKey(chance.randbytes(32), header.key_id))
    return Plan(str(sealed[0]), on_top=[(str(sealed[0]), sealed[1])])


def foreign_key(sample: Sample, chance: random.Random) -> Plan:
    """Something of a stranger: well formed but signed by nobody we know, or a name that isn't ours at all."""
    name, header = _any_sealed(sample, chance)
    if chance.random() < 0.5:
        stranger = Signer.from_seed(chance.randbytes(32))
        key, data = _resealed(header, stranger, DataKey.of(chance.randbytes(32)))
        return Plan(str(key), on_top=[(str(key), data)])
    text = chance.choice(
        [
            f"{name}.tmp",
            f"{name}-copy",
            name.upper().replace(sample.vault.estate.upper(), sample.vault.estate),
            f"{sample.vault.estate}/ledger/notes.txt",
            f"{sample.vault.estate}/readme",
            f"{sample.vault.estate}/ledger/wal/{chance.randrange(99)}/x/y/z",
            name[:-1],
        ]
    )
    return Plan(text, error=False, on_top=[(text, chance.randbytes(chance.randrange(500)))])


def version_on_top(sample: Sample, chance: random.Random) -> Plan:
    """A later version of an object, of other bytes or of another object's."""
    name, data = _any(sample, chance)
    other = chance.choice(
        [chance.randbytes(chance.randrange(500)), sample.sealed[chance.choice(sorted(sample.sealed))]]
    )
    if other == data:
        other = b""
    return Plan(name, error=False, on_top=[(name, other)])


def marker_on_top(sample: Sample, chance: random.Random) -> Plan:
    """A delete marker, at times with a version on top of it that then shows instead."""
    name, _ = _any(sample, chance)
    more = [(name, chance.randbytes(50))] if chance.random() < 0.3 else []
    return Plan(name, error=False, on_top=[(name, None), *more])


KINDS: dict[str, Callable[[Sample, random.Random], Plan]] = {
    plan.__name__: plan
    for plan in (
        flip, cut, delete, swap, replay, duplicate, swapped_header, wrong_key, foreign_key, version_on_top,
        marker_on_top,
    )
}  # fmt: skip


def apply_in_memory(plan: Plan, store: MemoryStore) -> None:
    """Carry `plan` out beneath the store's own rules."""
    for name, data in plan.beneath.items():
        if data is None:
            del store.rows[name]
        else:
            store.rows[name][0].data = data
    for name, data in plan.on_top:
        store.add(name, data)


def judge(plan: Plan, sample: Sample, vault: Vault) -> str:
    """Why the damage in `vault` was not caught and named; nothing if it was."""
    if plan.wrong_folder:
        return _judge_wrong_folder(vault)
    report = verify(vault, witness=sample.witness)
    kinds = {finding.severity for finding in report.findings if _names(finding.key, plan.named)}
    if plan.error:
        return "" if "error" in kinds and not _opens(vault, plan.named) else _miss(report, plan)
    if report.errors or "notice" not in kinds:
        return _miss(report, plan)
    return _judge_undisturbed(plan, sample, vault)


def _judge_wrong_folder(vault: Vault) -> str:
    stranger = throwaway_vault(
        store=vault.store,
        estate=vault.estate,
        signer=vault.signer,
        provider=MemoryKeyProvider(bytes(32)),
        clock=vault.clock,
    )
    for attempt in (lambda: verify(stranger), lambda: stranger.open(next(iter(stranger.objects())))):
        try:
            attempt()
        except VaultError as error:
            if error.code != "vault.wrong_key":
                return f"a wrong keys folder gave {error.code}"
        else:
            return "a wrong keys folder opened the vault"
    return ""


def _judge_undisturbed(plan: Plan, sample: Sample, vault: Vault) -> str:
    """What was put on top or beside changes nothing: the object opens as before."""
    key = ObjectKey.parse(plan.named)
    if key is None or plan.named not in sample.sealed or key.stream == KEYS:
        return ""
    return "" if vault.fetch(vault.find(key)) == sample.sealed[plan.named] else "the overlay was read"


def _opens(vault: Vault, name: str) -> bool:
    """Whether a restore would take the damaged object for good."""
    key = ObjectKey.parse(name)
    if key is None or key.stream == KEYS:
        return False
    try:
        found: StoredObject = vault.find(key)
        vault.open(found)
    except VaultError:
        return False
    return True


def _names(found: str, wanted: str) -> bool:
    """A lost data key is named by its place, for it may have had several wrappings."""
    return found == wanted or (f"/{KEYS}/" in found and found.endswith("/") and wanted.startswith(found))


def _miss(report: VerifyReport, plan: Plan) -> str:
    seen = "; ".join(f"{finding.kind} {finding.key}" for finding in report.findings) or "nothing"
    return f"wanted {'an error' if plan.error else 'only notices'} about {plan.named}, found {seen}"


def _any(sample: Sample, chance: random.Random) -> tuple[str, bytes]:
    name = chance.choice(sorted(sample.sealed))
    return name, sample.sealed[name]


def _any_sealed(sample: Sample, chance: random.Random) -> tuple[str, Header]:
    name = chance.choice([name for name in sorted(sample.sealed) if f"/{KEYS}/" not in name])
    return name, split_head(sample.sealed[name])[0]


def _resealed(header: Header, signer: Signer, data_key: DataKey) -> tuple[ObjectKey, bytes]:
    """Another object for the same place, sealed by `signer` with `data_key`."""
    fields = {
        name: getattr(header, name)
        for name in (
            "estate", "dataset", "stream", "kind", "system_id", "timeline", "first", "last", "begin_at", "end_at",
            "previous", "writer_epoch", "extra",
        )
    }  # fmt: skip
    sealed = prepare(
        **fields,
        sealed_at=header.sealed_at + timedelta(seconds=1),
        plaintext=b"forged",
        data_key=data_key,
        signer=signer,
    ).seal()
    return sealed.key, sealed.data
