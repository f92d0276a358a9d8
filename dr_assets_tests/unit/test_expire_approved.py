"""Expiry where people have to agree: exactly the approved list goes, by the expirer's keys, or nothing does."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from dr_assets.cli import approvals as approvals_command
from dr_assets.cli import expire as expire_command
from dr_assets.cli import main
from dr_assets.estate.approvals import ApprovalRule, Approver
from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.stores.postgres.expire import expire, plan_expiry
from dr_assets.stores.postgres.expire_consent import ACTION, Consent
from dr_assets.stores.postgres.rollup_run import roll_up
from dr_assets.vault.approvals import Approvals, sign
from dr_assets.vault.expiry_list import EXPIRY, line_of
from dr_assets.vault.facts import facts
from dr_assets.vault.signing import Signer
from dr_assets.vault.storage import Lock
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify import verify
from dr_assets_tests.unit.test_rollup import SMALL, T0, Clock, Wal, vault_of

DAY = timedelta(days=1)
ALICE, BOB = Signer.from_seed(b"a" * 32), Signer.from_seed(b"b" * 32)
RULE = ApprovalRule((Approver("alice", ALICE.public_key.hex()), Approver("bob", BOB.public_key.hex())), needed=2)


class ExpirersStore(MemoryStore):
    """The same objects with an expirer's rights: it lists and deletes, and is refused whatever else it tries."""

    def __init__(self, store: MemoryStore, clock: Clock) -> None:
        super().__init__(clock)
        self.rows = store.rows

    def head(self, key: str, version_id: str | None = None) -> None:
        """No right to look: neither at the bytes nor at the lock."""
        raise VaultError("vault.refused_credentials", f"{key} {version_id}: the store refuses the credentials", "")

    def delete_version(self, key: str, version_id: str) -> None:
        """As a real store's: why it was refused, it can't find out."""
        try:
            super().delete_version(key, version_id)
        except VaultError:
            self.head(key, version_id)


@dataclass
class Aged:
    """Twenty-five micros, twenty of them beneath two fulls, whose locks are over."""

    clock: Clock = field(default_factory=Clock)
    vault: Vault = field(init=False)

    def __post_init__(self) -> None:
        self.vault = vault_of(self.clock)
        wal = Wal(self.vault)
        wal.put(25)
        wal.tell()
        roll_up(self.vault, "ledger", limits=SMALL)
        self.clock.now = T0 + 15 * DAY

    @property
    def store(self) -> MemoryStore:
        """The objects."""
        assert isinstance(self.vault.store, MemoryStore)
        return self.vault.store

    def lines(self) -> list[str]:
        """What may go today."""
        return [line_of(row) for row in plan_expiry(self.vault, "ledger").rows]

    def consent(self, lines: list[str], *signers: Signer) -> Consent:
        """A request for these lines that was signed."""
        approvals = Approvals(self.vault, "ledger", RULE)
        request = approvals.request(ACTION, lines, "carol", "beneath fulls")
        for signer in signers:
            approvals.add(sign(request, signer))
        return Consent(lines, lambda: approvals.consume(action=ACTION, objects=lines))

    def micros(self) -> int:
        """How many are left."""
        return sum(1 for _ in self.vault.objects("ledger", "wal"))


def refusal(act: Callable[[], object]) -> str:
    """The code with which something is refused."""
    with pytest.raises(PolicyError) as refused:
        act()
    return refused.value.code


def test_exactly_the_approved_list_goes_with_the_expirers_keys() -> None:
    """What aged as well meanwhile stays; the word of the expiry names the approval, and verify is content."""
    aged = Aged()
    lines = aged.lines()[:15]
    done = expire(
        aged.vault, "ledger", remover=ExpirersStore(aged.store, aged.clock), consent=aged.consent(lines, ALICE, BOB)
    )
    assert (done.removed, done.refused, aged.micros()) == (15, [], 10)
    *_, last = facts(aged.vault, "ledger", EXPIRY)
    (used,) = [one for one in Approvals(aged.vault, "ledger", RULE).standing() if one.used]
    assert last.body["approval"] == used.request.request_id
    assert not [finding for finding in verify(aged.vault).findings if finding.kind == "missing"]


def test_without_enough_signatures_nothing_goes() -> None:
    """One signature of two: refused before the list is sealed."""
    aged = Aged()
    consent = aged.consent(aged.lines(), ALICE)
    assert refusal(lambda: expire(aged.vault, "ledger", consent=consent)) == "approvals.too_few"
    assert aged.micros() == 25
    assert not list(facts(aged.vault, "ledger", EXPIRY))


def test_an_approval_does_not_work_twice() -> None:
    """The same file again, after what was on it is gone or before: refused."""
    aged = Aged()
    consent = aged.consent(aged.lines(), ALICE, BOB)
    expire(aged.vault, "ledger", consent=consent)
    assert refusal(lambda: expire(aged.vault, "ledger", consent=consent)) == "approvals.list_changed"
    assert refusal(consent.use) == "approvals.used"


def test_what_is_within_its_retention_is_refused_whoever_signed() -> None:
    """A lock that was lengthened, a hold that was placed, an object that never was due: the whole list is refused."""
    aged = Aged()
    lines = aged.lines()
    key, version = lines[3].split(" ")
    aged.store.extend(key, version, Lock("GOVERNANCE", aged.clock.now + 9 * DAY))
    approved = aged.consent(lines, ALICE, BOB)
    assert refusal(lambda: expire(aged.vault, "ledger", consent=approved)) == "approvals.still_locked"
    held = aged.consent([lines[4]], ALICE, BOB)
    aged.store.set_hold(*lines[4].split(" "), held=True)  # whose lock is over
    assert refusal(lambda: expire(aged.vault, "ledger", consent=held)) == "approvals.still_locked"
    full = next(aged.vault.objects("ledger", "full"))
    sneaked = aged.consent([*lines[:3], f"{full.key} {full.version_id}"], ALICE, BOB)
    assert refusal(lambda: expire(aged.vault, "ledger", consent=sneaked)) == "approvals.still_locked"
    aged.clock.now += 400 * DAY  # nothing is locked now, yet this full is all that holds the newest WAL
    needed = aged.consent([f"{full.key} {full.version_id}"], ALICE, BOB)
    assert refusal(lambda: expire(aged.vault, "ledger", consent=needed)) == "approvals.list_changed"
    assert aged.micros() == 25


def test_a_lock_that_only_the_store_knows_is_told_from_a_missing_right() -> None:
    """The expirer can't look why it was refused: the writer looks. What is locked is kept; no right is an error."""
    aged = Aged()
    lines = aged.lines()
    store = ExpirersStore(aged.store, aged.clock)
    key, version = lines[0].split(" ")
    consent = aged.consent(lines, ALICE, BOB)

    def use() -> str:  # somebody lengthens it after the plan was made
        aged.store.extend(key, version, Lock("GOVERNANCE", aged.clock.now + DAY))
        return consent.use()

    done = expire(aged.vault, "ledger", remover=store, consent=replace(consent, use=use))
    assert (done.removed, len(done.refused), aged.micros()) == (19, 1, 6)

    def refuse(_key: str, _version: str) -> None:
        raise VaultError("vault.refused_credentials", "the store refuses the credentials", "")

    aged.clock.now += 2 * DAY
    store.delete_version = refuse  # type: ignore[assignment, method-assign]  # keys that may not delete
    with pytest.raises(VaultError, match="refused_credentials"):
        expire(aged.vault, "ledger", remover=store)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., SimpleNamespace]:
    """`dr-assets …` in this process over an aged vault in memory, in an estate that declares approvals."""
    aged = Aged()
    estate = replace(load_estate(default_defs_dir()).only("ledger"), approvals=RULE)
    for module in (approvals_command, expire_command):
        monkeypatch.setattr(module, "estate_of", lambda _: estate)
        monkeypatch.setattr(module, "vault_of", lambda *_, **__: aged.vault)
    monkeypatch.setattr(expire_command, "open_store", lambda *_, **__: ExpirersStore(aged.store, aged.clock))

    def call(*args: str) -> SimpleNamespace:
        monkeypatch.setattr(sys, "argv", ["dr-assets", *args])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return SimpleNamespace(code=ended.value.code or 0, out=said.out, err=said.err)

    return call


def test_the_commands_from_request_to_removal(run: Callable[..., SimpleNamespace], tmp_path: Path) -> None:
    """Ask, look, sign apart from the vault, collect, remove: each step is one command, and none can be left out."""
    paper, key = tmp_path / "request.json", tmp_path / "new.pem"
    assert "approvals.needed" in run("expire", "ledger", "--yes").err
    made = run("approvals", "key", str(key))
    assert made.out.strip() == Signer.load(key).public_key.hex()
    ask = ("approvals", "request", "ledger", "-o", str(paper), "--requester", "carol", "--reason", "aged")
    assert "20 objects, 2 approvals needed" in run(*ask).out
    assert "approvals.file_exists" in run(*ask).err
    assert "20 objects, asked by carol" in run("approvals", "show", str(paper)).out
    signatures = []
    for name, signer in (("alice", ALICE), ("bob", BOB)):
        own = tmp_path / f"{name}.pem"
        signer.save(own)
        signed = run("approvals", "sign", str(paper), "--key", str(own))
        assert "aged" in signed.err
        signatures.append(tmp_path / f"{name}.json")
        signatures[-1].write_text(signed.out)
    assert "1 more needed" in run("approvals", "add", "ledger", str(signatures[0])).out
    expiring = ("expire", "ledger", "--yes", "--approved", str(paper))
    assert "approvals.too_few" in run(*expiring).err
    assert "enough" in run("approvals", "add", "ledger", str(signatures[1])).out
    assert json.loads(run("approvals", "list", "ledger", "--json").out)[0]["state"] == "ready"
    assert "20 objects removed" in run(*expiring).out
    assert run("approvals", "list", "ledger").out.startswith("used")
    assert "approvals.no_file" in run("approvals", "show", str(tmp_path / "none")).err
    assert key.stat().st_mode & 0o077 == 0
