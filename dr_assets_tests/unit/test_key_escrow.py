"""Escrow: what an offline identity opens when every provider is lost."""

import hashlib
import json
from dataclasses import replace

import pyrage
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pyrage import x25519

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.vault.facts import facts, record_fact
from dr_assets.vault.keys.life.choice import ESTATE, RETIRED
from dr_assets.vault.keys.life.escrow import FACT, drill, export, lacking, open_escrow, recover
from dr_assets.vault.keys.life.rotation import rotate
from dr_assets.vault.keys.memory_provider import MemoryKeyProvider
from dr_assets.vault.signing import MemoryKey, Signer, Trust
from dr_assets.vault.signing.kms_key import MESSAGE_LIMIT_BYTES
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault
from dr_assets_tests.faults.vault.sample import StepClock, put

IDENTITY = x25519.Identity.generate()
FILE = f"# created: today\n# public key: {IDENTITY.to_public()}\n{IDENTITY}\n"


class World:
    """A vault with an object under each of two data keys."""

    def __init__(self) -> None:
        self.clock, self.signer = StepClock(), Signer.generate()
        self.store, self.provider = MemoryStore(self.clock), MemoryKeyProvider()
        vault = self.vault()
        put(vault, "wal", "wal", 0, 4, b"first")
        rotate(vault, "ledger", "test")
        put(vault, "wal", "wal", 4, 8, b"second")

    def vault(self, provider: MemoryKeyProvider | None = None) -> Vault:
        """As a new process opens it."""
        return throwaway_vault(
            store=self.store, signer=self.signer, clock=self.clock, provider=provider or self.provider
        )


def test_the_identity_alone_opens_every_dataset() -> None:
    """A drill opens objects of each dataset with no provider, and says so in the vault."""
    world = World()
    data = export(world.vault(), str(IDENTITY.to_public()), {"subject_id_key": "00" * 32})
    done = drill(world.vault(), data, FILE)
    assert done.ok
    assert done.opened["ledger"] >= 2
    assert [fact.body["event"] for fact in facts(world.vault(), ESTATE, FACT)] == ["exported", "drilled"]
    escrow = open_escrow(data, FILE)
    assert escrow.more == {"subject_id_key": "00" * 32}
    assert escrow.trust == Trust.of(world.signer)
    inside = json.loads(pyrage.decrypt(data, [IDENTITY]))
    assert inside["kind"] == "dr_assets key escrow v1"
    assert "secret" not in repr(escrow)
    assert inside["data_keys"]["ledger"].popitem()[1] not in repr(escrow)


def test_an_export_that_a_rotation_outdated_is_told() -> None:
    """The drill names the key that lacks, and so does the list of what is in no export."""
    world = World()
    assert lacking(world.vault())
    data = export(world.vault(), str(IDENTITY.to_public()))
    assert lacking(world.vault()) == []
    key_id = rotate(world.vault(), "ledger", "again").key_id
    assert f"ledger/{key_id}" in lacking(world.vault())
    done = drill(world.vault(), data, FILE)
    assert not done.ok
    assert f"ledger/{key_id}" in done.lacking


def test_with_every_provider_lost_the_vault_goes_on_under_a_new_one() -> None:
    """Recovered keys are wrapped by the new provider: old objects open, new ones are written."""
    world = World()
    data = export(world.vault(), str(IDENTITY.to_public()))
    lost = world.vault(MemoryKeyProvider())
    with pytest.raises(VaultError, match=r"vault\.wrong_key"):
        lost.open(next(iter(lost.objects("ledger", "wal"))))
    new = MemoryKeyProvider()
    recover(world.vault(new), open_escrow(data, FILE, world.vault().trust))
    alone = world.vault(new)
    assert [alone.open(obj).plaintext for obj in alone.objects("ledger", "wal")] == [b"first", b"second"]
    put(alone, "wal", "wal", 8, 12, b"third")


def test_wrong_identities_recipients_and_files_are_told_apart() -> None:
    """Another identity, a file without one, a damaged escrow, one that a stranger made."""
    world = World()
    with pytest.raises(PolicyError, match=r"escrow\.bad_recipient"):
        export(world.vault(), "age1nobody")
    data = export(world.vault(), str(IDENTITY.to_public()))
    for bad, code in ((str(x25519.Identity.generate()), "wrong_identity"), ("hello", "bad_identity")):
        with pytest.raises((PolicyError, VaultError), match=code):
            open_escrow(data, bad)
    with pytest.raises(VaultError, match="wrong_identity"):
        open_escrow(data[:-1] + b"x", FILE)
    with pytest.raises(VaultError, match="untrusted_signer"):
        open_escrow(data, FILE, Trust.of(Signer.generate()))
    inside = json.loads(pyrage.decrypt(data, [IDENTITY])) | {"estate": "other"}
    forged = json.dumps(inside, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(VaultError, match="bad_signature"):
        open_escrow(pyrage.encrypt(forged, [IDENTITY.to_public()]), FILE)


def test_a_retirement_on_record_does_not_stand_in_the_way_of_a_recovery() -> None:
    """What was decided about keys lies sealed under keys that only the escrow opens now: it is read by those."""
    world = World()
    record_fact(world.vault(), ESTATE, RETIRED, {"kek_id": "00" * 16, "keys": {}, "reason": "stolen last year"})
    data = export(world.vault(), str(IDENTITY.to_public()))
    new = MemoryKeyProvider()
    recover(world.vault(new), open_escrow(data, FILE, world.vault().trust))
    alone = world.vault(new)
    assert [alone.open(obj).plaintext for obj in alone.objects("ledger", "wal")] == [b"first", b"second"]
    put(alone, "wal", "wal", 8, 12, b"third")


def test_another_estates_escrow_is_refused() -> None:
    """Two estates may have one signer: the keys of one are no keys of the other's vault."""
    world = World()
    other = throwaway_vault(estate="bookmaker", signer=world.signer, clock=world.clock)
    put(other, "wal", "wal", 0, 4, b"theirs")
    data = export(other, str(IDENTITY.to_public()))
    before = len(world.store.list_level("casino/").folders)
    with pytest.raises(PolicyError, match=r"escrow\.other_estate"):
        recover(world.vault(), open_escrow(data, FILE, world.vault().trust))
    with pytest.raises(PolicyError, match=r"escrow\.other_estate"):
        drill(world.vault(), data, FILE)
    assert len(world.store.list_level("casino/").folders) == before


def test_what_a_stranger_laid_among_the_objects_stops_no_drill() -> None:
    """The newest object under a fitting name is rubbish: the drill opens what is ours."""
    world = World()
    data = export(world.vault(), str(IDENTITY.to_public()))
    vault = world.vault()
    newest = max(vault.objects("ledger", "wal"), key=lambda obj: obj.key.first).key
    rubbish = b"rubbish"
    sha256 = hashlib.sha256(rubbish).hexdigest()
    name = replace(newest, first=newest.last, last=newest.last + 4, digest=sha256[:32])
    world.clock()
    world.store.put(str(name), rubbish, sha256, vault.locks.lock("ledger", "wal", world.clock()))
    done = drill(vault, data, FILE)
    assert done.ok
    assert done.opened["ledger"] >= 2


def test_a_signer_that_takes_short_messages_only_signs_an_export_of_any_size() -> None:
    """KMS signs at most 4096 bytes as they are; an estate has more data keys than fit into that after a year."""
    world = World()
    keys = {f"{number:032x}": "00" * 32 for number in range(100)}
    key = ShortMessages(Ed25519PrivateKey.generate())
    world.signer = Signer(key)
    vault = throwaway_vault(store=MemoryStore(world.clock), signer=world.signer, clock=world.clock)
    put(vault, "wal", "wal", 0, 4, b"first")
    data = export(vault, str(IDENTITY.to_public()), keys)
    assert open_escrow(data, FILE, vault.trust).more == keys


class ShortMessages(MemoryKey):
    """As KMS: refuses what it would not take raw."""

    def sign(self, message: bytes) -> bytes:
        """As the port says."""
        if len(message) > MESSAGE_LIMIT_BYTES:
            raise ValueError
        return super().sign(message)
