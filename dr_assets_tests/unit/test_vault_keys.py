"""Data keys, their wrappings, signers and the files that hold secrets."""

import threading
from datetime import timedelta
from pathlib import Path

import pytest

from dr_assets.estate.errors import DrError, PolicyError, VaultError
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.keys.derive import DataKey, derive_frame_key
from dr_assets.vault.keys.file_provider import DEMO_ONLY, FileKeyProvider
from dr_assets.vault.keys.memory_provider import MemoryKeyProvider
from dr_assets.vault.keys.provider import WrapContext
from dr_assets.vault.signing import Signer, Trust
from dr_assets.vault.storage import Lock
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets_tests.faults.vault.sample import StepClock, StillClock, put

CONTEXT = WrapContext("casino", "ledger", "ab" * 16, 1)


def code_of(caught: pytest.ExceptionInfo[DrError]) -> str:
    """The stable code."""
    return caught.value.code


def test_secrets_never_show_in_a_repr() -> None:
    """A repr ends up in logs and tracebacks."""
    secret = b"\xaa" * 32
    shown = repr([DataKey.of(secret), derive_frame_key(DataKey.of(secret), bytes(32)), Signer.from_seed(secret)])
    assert "\\xaa" not in shown
    assert "aaaa" not in shown


def test_a_data_keys_id_follows_from_the_key() -> None:
    """Two wrappings can't disagree about which key they hold; other keys have other ids."""
    assert DataKey.of(bytes(32)).key_id == DataKey.of(bytes(32)).key_id
    assert DataKey.of(bytes(32)).key_id != DataKey.of(b"\1" * 32).key_id
    with pytest.raises(ValueError, match="32"):
        DataKey.of(bytes(31))


def test_the_file_provider_unwraps_what_it_wrapped_and_nothing_moved(tmp_path: Path) -> None:
    """A wrapping is bound to estate, dataset, key, generation and purpose."""
    provider = FileKeyProvider.create(tmp_path / "keys")
    wrapping = provider.wrap(bytes(32), CONTEXT)
    assert FileKeyProvider(tmp_path / "keys").unwrap(wrapping, CONTEXT) == bytes(32)
    for moved in (
        WrapContext("other", "ledger", "ab" * 16, 1),
        WrapContext("casino", "other", "ab" * 16, 1),
        WrapContext("casino", "ledger", "cd" * 16, 1),
        WrapContext("casino", "ledger", "ab" * 16, 2),
        WrapContext("casino", "ledger", "ab" * 16, 1, purpose="person-key"),
    ):
        with pytest.raises(VaultError) as caught:
            provider.unwrap(wrapping, moved)
        assert code_of(caught) == "vault.wrong_key"


def test_after_a_rotation_the_new_key_wraps_and_the_old_one_still_unwraps(tmp_path: Path) -> None:
    """The highest number wraps; nothing that was wrapped is lost."""
    old = FileKeyProvider.create(tmp_path)
    before = old.wrap(bytes(32), CONTEXT)
    new = FileKeyProvider.create(tmp_path)
    assert new.wrap(bytes(32), CONTEXT).kek_id != before.kek_id
    assert new.unwrap(before, CONTEXT) == bytes(32)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kek-0001.hex", "kek-0002.hex"]


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """Group or world readable: refused with the command that mends it; absent, empty or odd files are told."""
    FileKeyProvider.create(tmp_path)
    path = tmp_path / "kek-0001.hex"
    assert path.stat().st_mode & 0o777 == 0o600
    for mode in (0o640, 0o604, 0o660):
        path.chmod(mode)
        with pytest.raises(PolicyError, match="chmod 600") as caught:
            FileKeyProvider(tmp_path)
        assert code_of(caught) == "keys.readable_by_others"
    path.chmod(0o600)
    for text in ("", "zz", "ab" * 31):
        path.write_text(text)
        with pytest.raises(PolicyError, match="bad_kek"):
            FileKeyProvider(tmp_path)
    path.unlink()
    with pytest.raises(PolicyError, match="vault init"):
        FileKeyProvider(tmp_path)
    assert "NOT for production" in DEMO_ONLY


def test_signing_keys_and_trust_survive_their_files(tmp_path: Path) -> None:
    """Written once, mode 0600, never overwritten; another key or file is told apart."""
    signer = Signer.generate()
    signer.save(tmp_path / "signer.pem")
    assert Signer.load(tmp_path / "signer.pem").signer_id == signer.signer_id
    with pytest.raises(FileExistsError):
        signer.save(tmp_path / "signer.pem")
    Trust.of(signer).save(tmp_path / "trust.json", "writer")
    assert Trust.load(tmp_path / "trust.json") == Trust.of(signer)
    (tmp_path / "odd.pem").write_text("no key")
    (tmp_path / "odd.pem").chmod(0o600)
    with pytest.raises(PolicyError, match="bad_signing_key"):
        Signer.load(tmp_path / "odd.pem")
    for text in ("", "[]", '{"signers": [{"public_key": "zz"}]}', '{"signers": 1}', "[" * 100_000):
        (tmp_path / "odd.json").write_text(text)
        with pytest.raises(PolicyError, match="bad_trust_file"):
            Trust.load(tmp_path / "odd.json")
    with pytest.raises(PolicyError, match="no_trust_file"):
        Trust.load(tmp_path / "absent.json")


def test_a_signature_holds_in_its_domain_only() -> None:
    """What was signed as a key object is no signature of a sealed object."""
    signer = Signer.generate()
    signature = signer.sign(b"one", b"message")
    Trust.of(signer).verify(signer.signer_id, signature, b"one", b"message", name="x")
    for domain, message in ((b"other", b"message"), (b"one", b"other"), (b"one\0m", b"essage")):
        with pytest.raises(VaultError, match="bad_signature"):
            Trust.of(signer).verify(signer.signer_id, signature, domain, message, name="x")


def test_the_first_writer_makes_the_key_and_the_next_ones_use_it() -> None:
    """One data key a dataset, its wrapping locked for longer than anything sealed under it."""
    one = throwaway_vault()
    first = one.keys.for_writing("ledger")
    two = throwaway_vault(store=one.store, signer=one.signer, provider=one.keys.provider)
    assert two.keys.for_writing("ledger") == first
    (name,) = list(one.names("casino/ledger/keys/"))
    head = one.store.head(name.text)
    assert head is not None
    assert head.lock is not None
    assert head.lock.retain_until - one.clock() > 2 * one.locks.length("ledger", "part")


def test_two_processes_that_make_the_first_key_at_once_lose_nothing() -> None:
    """Both keys are valid; whatever either sealed opens, and later writers agree on one."""
    store, provider, signer = MemoryStore(), MemoryKeyProvider(), Signer.generate()
    vaults = [throwaway_vault(store=store, provider=provider, signer=signer) for _ in range(8)]
    barrier = threading.Barrier(len(vaults))

    def write(number: int) -> None:
        barrier.wait()
        put(vaults[number], "wal", "wal", number, number + 1, b"%d" % number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(len(vaults))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reader = throwaway_vault(store=store, provider=provider, signer=signer)
    assert [reader.open(obj).plaintext for obj in reader.objects()] == [b"%d" % number for number in range(8)]
    later = {
        throwaway_vault(store=store, provider=provider, signer=signer).keys.for_writing("ledger").key_id
        for _ in range(3)
    }
    assert len(later) == 1


def test_a_strangers_key_object_does_not_stop_a_writer() -> None:
    """Rubbish and keys signed by nobody we know lie beside ours and are passed over."""
    vault = throwaway_vault(clock=StepClock())
    stranger = throwaway_vault(store=vault.store, clock=vault.clock)
    stranger.keys.for_writing("ledger")
    store = vault.store
    assert isinstance(store, MemoryStore)
    store.add(str(ObjectKey("casino", "ledger", "keys", "00" * 16, 1, 0, 0, "ab" * 16)), b"rubbish")
    with pytest.raises(VaultError, match=r"tampered|untrusted"):
        vault.keys.for_writing("ledger")  # nothing of ours is there: making one beside them could fork a dataset
    ours = throwaway_vault()
    key = ours.keys.for_writing("ledger")
    assert isinstance(ours.store, MemoryStore)
    ours.store.rows |= store.rows
    again = throwaway_vault(store=ours.store, signer=ours.signer, provider=ours.keys.provider)
    assert again.keys.for_writing("ledger") == key


def test_a_wrong_keys_folder_is_one_clear_error() -> None:
    """And no second data key is made beside the one that can't be unwrapped."""
    vault = throwaway_vault()
    vault.keys.for_writing("ledger")
    wrong = throwaway_vault(store=vault.store, signer=vault.signer)
    with pytest.raises(VaultError, match="keys folder") as caught:
        wrong.keys.for_writing("ledger")
    assert code_of(caught) == "vault.wrong_key"
    assert len(list(vault.names("casino/ledger/keys/"))) == 1


def test_rotation_adds_a_wrapping_and_old_objects_open_with_the_new_folder_alone(tmp_path: Path) -> None:
    """Nothing locked is touched: the new key-encryption key opens what was sealed before it existed."""
    old = FileKeyProvider.create(tmp_path / "keys")
    vault = throwaway_vault(provider=old)
    sealed = put(vault, "wal", "wal", 0, 5, b"money")
    rotated = throwaway_vault(
        store=vault.store, signer=vault.signer, provider=FileKeyProvider.create(tmp_path / "keys")
    )
    wrappings = rotated.keys.complete("ledger", sealed.header.key_id)
    assert [held.context.generation for held in wrappings] == [1, 2]
    assert rotated.keys.complete("ledger", sealed.header.key_id) == wrappings
    (tmp_path / "keys" / "kek-0001.hex").unlink()
    alone = throwaway_vault(store=vault.store, signer=vault.signer, provider=FileKeyProvider(tmp_path / "keys"))
    assert alone.open(alone.find(sealed.key)).plaintext == b"money"


def test_a_keys_lock_is_renewed_before_what_it_opens_could_outlive_it() -> None:
    """A capture that runs for years keeps extending; a young lock is left alone."""
    clock = StillClock()
    vault = throwaway_vault(clock=clock)
    vault.keys.for_writing("ledger")
    (name,) = list(vault.names("casino/ledger/keys/"))
    length = vault.locks.length("ledger", "key")

    def until() -> timedelta:
        head = vault.store.head(name.text)
        assert head is not None
        assert head.lock is not None
        return head.lock.retain_until - clock.at

    clock.at += length / 3
    vault.keys.for_writing("ledger")
    assert until() < length * 3 / 4
    clock.at += length / 3
    vault.keys.for_writing("ledger")
    assert until() >= length


def test_a_renewed_lock_is_read_back() -> None:
    """A store that nods and does nothing is found out before anything is sealed under a key that may vanish."""

    class Nodding(MemoryStore):
        """Lengthens nothing."""

        def extend(self, key: str, version_id: str, lock: Lock) -> None:
            """Nod."""

    clock = StillClock()
    vault = throwaway_vault(clock=clock, store=Nodding(clock))
    vault.keys.for_writing("ledger")
    clock.at += vault.locks.length("ledger", "key") * 2 / 3
    with pytest.raises(VaultError, match="not_locked"):
        vault.keys.for_writing("ledger")


def test_without_a_signing_key_nothing_is_written() -> None:
    """A reader's vault refuses to seal and to make keys."""
    vault = throwaway_vault()
    vault.signer = None
    with pytest.raises(PolicyError, match="signing key"):
        put(vault, "wal", "wal", 0, 1, b"x")
