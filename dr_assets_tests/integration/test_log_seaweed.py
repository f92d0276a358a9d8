"""The log on a real S3 store: listings of few names a page, sequencers that race, and what the command line shows."""

import json
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dr_assets.cli import log as cli
from dr_assets.engines.seaweed import SeaweedRegion
from dr_assets.estate.errors import VaultError
from dr_assets.vault.facts import record_fact
from dr_assets.vault.keys.memory_provider import MemoryKeyProvider
from dr_assets.vault.log.proof import check_proof, require_named
from dr_assets.vault.log.reader import LogReader
from dr_assets.vault.log.sequencer import Sequencer
from dr_assets.vault.signing import Signer, Trust
from dr_assets.vault.storage import s3
from dr_assets.vault.storage.s3 import S3Store, make_client
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify import verify

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("vault-seaweed")]

Opened = Callable[[], Vault]


@pytest.fixture
def opened(region: SeaweedRegion, bucket: Callable[..., str]) -> Opened:
    """Opens the same vault anew each time."""
    name, provider, signer = bucket(), MemoryKeyProvider(), Signer.generate()

    def make() -> Vault:
        store = S3Store(make_client(region.endpoint, region.access_key, region.secret_key), name)
        return throwaway_vault(store=store, provider=provider, signer=signer)

    return make


def piece(vault: Vault, first: int) -> None:
    """A piece of WAL at a position."""
    now = vault.clock()
    prepared = vault.prepare(
        dataset="ledger", stream="wal", kind="wal", system_id="7", timeline=1, first=first, last=first + 10,
        begin_at=now, end_at=now, plaintext=b"w" * 10,
    )  # fmt: skip
    vault.put(prepared.seal(), vault.locks.lock("ledger", "wal", now))


def in_log(vault: Vault) -> list[str]:
    """Every name that the log vouches for."""
    reader = LogReader.open(vault)
    return [] if reader is None else [name for vouched in reader.vouched() for name in vouched.names]


def in_store(vault: Vault) -> list[str]:
    """Every object and key of the vault."""
    names = [name.text for name in vault.names(f"{vault.estate}/") if name.key is not None]
    return sorted(names)


def test_the_log_of_a_real_store_is_whole_with_pages_of_a_few_names(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Partial tiles beside full ones, folders beside names that begin them: nothing gets lost at a page's end."""
    monkeypatch.setattr(s3, "PAGE_KEYS", 3)
    at_once = timedelta(0)
    for round_number in range(4):
        vault = opened()
        for number in range(2):
            record_fact(vault, "ledger", "roll_up", {"number": number})
            piece(vault, 1000 + 20 * round_number + 10 * number)
        assert Sequencer(vault, pause=at_once).run().caught_up
    assert sorted(in_log(opened())) == in_store(opened())
    assert not [finding for finding in verify(opened()).findings if "/log/" in finding.key]
    reader = LogReader.open(opened())
    assert reader is not None
    for size in range(1, reader.checkpoint.size):
        earlier = LogReader.at(opened(), size)
        if earlier is not None:
            reader.require_extends(earlier.checkpoint)


def test_sequencers_that_race_beside_a_writer_make_one_history(opened: Opened) -> None:
    """Three at once, over and over, while facts are recorded: no fork, nothing twice, nothing left."""
    stop, troubles = threading.Event(), list[VaultError]()
    lost = 0

    def sequence() -> None:
        nonlocal lost
        while not stop.is_set():
            try:
                lost += Sequencer(opened(), pause=timedelta(0)).run().lost
            except VaultError as error:
                troubles.append(error)

    threads = [threading.Thread(target=sequence) for _ in range(3)]
    for thread in threads:
        thread.start()
    writer = opened()
    for number in range(15):
        record_fact(writer, "ledger", "roll_up", {"number": number})
    stop.set()
    for thread in threads:
        thread.join()
    assert not troubles
    Sequencer(opened(), pause=timedelta(0)).run()
    names = in_log(opened())
    assert len(names) == len(set(names))
    assert sorted(names) == in_store(opened())
    assert not [finding for finding in verify(opened()).errors if "/log/" in finding.key]


def test_the_command_line_sequences_shows_proves_and_exports(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a person, cron and an auditor call; an object that is not logged is no proof but a hint."""
    vault = opened()
    receipt = record_fact(vault, "ledger", "expiry", {"event": "begun"})
    monkeypatch.setattr(cli, "vault_of", lambda *_, **__: opened())
    monkeypatch.setattr(cli, "estate_of", lambda _: None)
    run = CliRunner().invoke
    told = json.loads(run(cli.app, ["sequence", "--json"]).stdout)
    assert (told["leaves"], told["objects"], told["lost"]) == (2, 2, False)
    shown = json.loads(run(cli.app, ["show", "--json"]).stdout)
    assert (shown["size"], shown["root"], shown["caught_up"]) == (2, told["root"], True)
    file = tmp_path / "fact.tlog-proof"
    assert run(cli.app, ["prove", str(receipt.key), "--out", str(file)]).exit_code == 0
    assert vault.signer is not None
    require_named(check_proof(file.read_text(), Trust.of(vault.signer)), str(receipt.key))
    late = record_fact(vault, "ledger", "expiry", {"event": "done"})
    refused = run(cli.app, ["prove", str(late.key)])
    assert isinstance(refused.exception, VaultError)
    assert refused.exception.code == "log.not_vouched"
    folder = tmp_path / "copy"
    assert run(cli.app, ["export", str(folder)]).exit_code == 0
    assert (folder / "checkpoint").read_text() == shown["note"]
    assert (folder / "tile" / "entries" / "000.p" / "2").exists()
    assert run(cli.app, ["sequence", "--every", "5s"]).exception is not None
