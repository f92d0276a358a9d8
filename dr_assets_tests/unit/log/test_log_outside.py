"""Asking the declared outsiders after a checkpoint: nobody waits for the dead, forks are red, quorums are counted."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.estate.errors import PolicyError
from dr_assets.estate.log_policy import DeclaredAnchor, DeclaredStamps, DeclaredWitness, LogPolicy
from dr_assets.vault.log.checkpoint import verifiers_of
from dr_assets.vault.log.cosignature import CosignatureVerifier
from dr_assets.vault.log.files import LogFiles
from dr_assets.vault.log.outside import (
    Outsiders,
    amiss,
    belief_of,
    collect,
    newest_witnessed,
    outsiders_of,
    waiting_since,
)
from dr_assets.vault.log.outsider import PATIENCE_S
from dr_assets.vault.log.shelf import WITNESSED, Proof, VaultShelf
from dr_assets.vault.log.witness_book import WitnessBook
from dr_assets.vault.log.witness_client import WitnessPlace
from dr_assets.vault.log.witness_server import WitnessServer
from dr_assets.vault.log.witness_setup import WitnessFolder

PATIENCE = timedelta(minutes=9)
SOON = timedelta(milliseconds=300)


class Witnesses:
    """Real witnesses on loopback; their clock is the vault's."""

    def __init__(self, stack: ExitStack, folder: Path, logged: Any) -> None:
        self.stack, self.folder, self.logged = stack, folder, logged

    def start(self, name: str, origin_key: str, *, takes_s: float = 0.0) -> WitnessPlace:
        """One more; it cosigns after so many seconds."""

        def clock() -> datetime:
            time.sleep(takes_s)
            now: datetime = self.logged.now
            return now

        setup = WitnessFolder(self.folder / name)
        signer = setup.begin(f"witness.example/{name}", lambda: self.logged.now)
        setup.add_log(origin_key)
        book = self.stack.enter_context(WitnessBook(setup.path))
        server = WitnessServer(("127.0.0.1", 0), setup.cosigner(book, clock))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        for step in (server.server_close, thread.join, server.shutdown):
            self.stack.callback(step)
        return WitnessPlace(name, f"http://127.0.0.1:{server.server_port}", signer.verifier)


@pytest.fixture
def witnesses(tmp_path: Path, logged: Any) -> Iterator[Witnesses]:
    """Starts them, and stops them in the end."""
    with ExitStack() as stack:
        yield Witnesses(stack, tmp_path, logged)


def _key(logged: Any) -> str:
    belief = belief_of(load_estate(default_defs_dir()).only("ledger"), "throwaway", logged.vault.trust, Outsiders())
    return str(next(iter(verifiers_of(belief.origin, belief.trust))).key)


def _nobody() -> CosignatureVerifier:
    return CosignatureVerifier("witness.example/dead", bytes(32))


def _dead() -> WitnessPlace:
    return WitnessPlace("dead", "http://127.0.0.1:9", _nobody())


def test_a_quorum_forms_although_a_witness_is_dead(logged: Any, witnesses: Witnesses) -> None:
    """Two of three answer: both are kept, the newest witnessed checkpoint is this one, the dead is a warning."""
    places = (witnesses.start("w1", _key(logged)), witnesses.start("w2", _key(logged)), _dead())
    outsiders = Outsiders(places, quorum=2)
    for _ in range(3):
        logged.fact()
        logged.sequence()
        heard = collect(outsiders, logged.reader(), logged.now, patience=PATIENCE)
    assert [one.standing for one in heard] == ["vouched", "vouched", "away"]
    reader = logged.reader()
    witnessed = newest_witnessed(outsiders, reader)
    assert witnessed
    assert (witnessed.size, witnessed.at) == (reader.checkpoint.size, logged.now.replace(microsecond=0))
    assert waiting_since(reader, witnessed) is None
    assert [(one.code, one.red) for one in amiss(outsiders, heard, None, logged.now)] == [("log.outsider_away", False)]
    assert len(VaultShelf(LogFiles(logged.vault)).sizes(WITNESSED)) == 3


def test_too_few_cosignatures_are_no_quorum(logged: Any, witnesses: Witnesses) -> None:
    """One of two answers where two are asked for: its word is kept, and nothing counts as witnessed."""
    outsiders = Outsiders((witnesses.start("w1", _key(logged)), _dead()), quorum=2)
    logged.fact()
    logged.sequence()
    reader = logged.reader()
    assert [one.standing for one in collect(outsiders, reader, logged.now, patience=PATIENCE)] == ["vouched", "away"]
    assert newest_witnessed(outsiders, reader) is None
    assert newest_witnessed(replace(outsiders, quorum=1), reader)


def test_a_quorum_that_is_late_is_red(logged: Any, witnesses: Witnesses) -> None:
    """Leaves wait from when they were made: a warning at first, red after the declared time; then it clears."""
    place = witnesses.start("w1", _key(logged))
    outsiders = Outsiders((replace(place, url="http://127.0.0.1:9"),), quorum=1, cosigned_within=timedelta(hours=1))
    logged.fact()
    logged.sequence()
    for hours, red in ((0.5, False), (0.6, True)):
        logged.later(hours=hours)
        reader = logged.reader()
        heard = collect(outsiders, reader, logged.now, patience=PATIENCE)
        waiting = waiting_since(reader, newest_witnessed(outsiders, reader))
        assert any(one.code == "log.quorum_late" for one in amiss(outsiders, heard, waiting, logged.now)) == red
    back = Outsiders((place,), quorum=1)
    heard = collect(back, reader, logged.now, patience=PATIENCE)
    assert amiss(back, heard, waiting_since(reader, newest_witnessed(back, reader)), logged.now) == []


def test_a_rolled_back_log_is_red(logged: Any, witnesses: Witnesses) -> None:
    """The witness saw more leaves than the vault shows now: red, whoever set the vault back."""
    outsiders = Outsiders((witnesses.start("w1", _key(logged)),), quorum=1)
    logged.fact()
    logged.sequence()
    earlier = logged.reader()
    logged.fact()
    logged.sequence()
    collect(outsiders, logged.reader(), logged.now, patience=PATIENCE)
    heard = collect(outsiders, earlier, logged.now, patience=PATIENCE)
    assert [(one.code, one.red) for one in amiss(outsiders, heard, None, logged.now)] == [("log.rolled_back", True)]


def test_a_forked_log_is_red(logged: Any, logged_vault: Any, witnesses: Witnesses) -> None:
    """The same signer's other history for the same log: the witness refuses it, and that is red."""
    outsiders = Outsiders((witnesses.start("w1", _key(logged)),), quorum=1)
    double = logged_vault(signer=logged.signer)
    for one in (logged, double):
        one.fact()
        one.sequence()
    double.fact(count=2)
    double.sequence()
    collect(outsiders, logged.reader(), logged.now, patience=PATIENCE)
    heard = collect(outsiders, double.reader(), logged.now, patience=PATIENCE)
    assert [(one.code, one.red) for one in amiss(outsiders, heard, None, logged.now)] == [("log.forked", True)]


def test_a_witness_that_never_answers_delays_nothing(logged: Any, witnesses: Witnesses) -> None:
    """It takes the connection and is silent: `away` when the patience is over, the other's word is kept."""
    logged.fact()
    logged.sequence()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mute = replace(_dead(), url=f"http://127.0.0.1:{silent.getsockname()[1]}")
        outsiders = Outsiders((mute, witnesses.start("w1", _key(logged))), quorum=1)
        heard = collect(outsiders, logged.reader(), logged.now, patience=SOON)
    assert (heard[0].standing, heard[0].detail.startswith("no answer within")) == ("away", True)
    again = collect(outsiders, logged.reader(), logged.now, patience=PATIENCE)
    assert again[1].standing == "vouched"


def test_a_slow_witness_is_waited_for_by_who_has_the_patience(logged: Any, witnesses: Witnesses) -> None:
    """Each request may take as long as the whole patience allows: no answer is cut off while there is time for it."""
    logged.fact()
    logged.sequence()
    outsiders = Outsiders((witnesses.start("w1", _key(logged), takes_s=PATIENCE_S + 0.5),), quorum=1)
    (heard,) = collect(outsiders, logged.reader(), logged.now, patience=PATIENCE)
    assert heard.standing == "vouched"


def test_our_own_bug_is_nobodys_absence(logged: Any, witnesses: Witnesses, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is raised, and does not pass for a witness that is away."""
    logged.fact()
    logged.sequence()
    outsiders = Outsiders((witnesses.start("w1", _key(logged)),), quorum=1)

    def bug(*_: object) -> None:
        raise TypeError("a bug")

    monkeypatch.setattr(VaultShelf, "put", bug)
    with pytest.raises(TypeError, match="a bug"):
        collect(outsiders, logged.reader(), logged.now, patience=PATIENCE)


def test_junk_beside_a_checkpoint_makes_no_quorum(logged: Any, witnesses: Witnesses) -> None:
    """Whoever may write to the store lays files called like cosignatures there: they count nothing."""
    place = witnesses.start("w1", _key(logged))
    outsiders = Outsiders((place,), quorum=1)
    logged.fact()
    logged.sequence()
    reader = logged.reader()
    VaultShelf(reader.files).put(Proof(WITNESSED, reader.checkpoint.size, place.shelf_name, b"junk"))
    assert newest_witnessed(outsiders, reader) is None
    collect(outsiders, reader, logged.now, patience=PATIENCE)
    assert newest_witnessed(outsiders, reader)


def test_the_declared_outsiders_come_from_the_environment(tmp_path: Path) -> None:
    """Addresses and files by variable; what lacks or would leave the host in clear is refused."""
    estate = load_estate(default_defs_dir()).only("ledger")
    key = str(_nobody().key)
    policy = LogPolicy((DeclaredWitness("w1", "W1", key),), 1)
    declared = replace(estate, log=policy)
    places = outsiders_of(declared, {"W1": "https://w1.example"})
    assert [(place.name, place.url, str(place.verifier.key)) for place in places.witnesses] == [
        ("w1", "https://w1.example", key)
    ]
    wrong: list[tuple[LogPolicy, dict[str, str], str]] = [
        (policy, {}, "vault.setting_missing"),
        (policy, {"W1": "http://w1.example"}, "policy.transport"),
        (policy, {"W1": "w1.example"}, "log.bad_url"),
        (
            replace(policy, witnesses=(DeclaredWitness("w1", "W1", key[:-1]),)),
            {"W1": "https://x"},
            "log.bad_verifier_key",
        ),
        (
            LogPolicy(timestamp=DeclaredStamps("T", "R", SOON)),
            {"T": "http://tsa.example", "R": str(tmp_path)},
            "log.bad_roots",
        ),
        (
            LogPolicy(anchor=DeclaredAnchor("C", "K", 1, 1, SOON)),
            {"C": "https://chain.example"},
            "vault.setting_missing",
        ),
    ]
    for log, env, code in wrong:
        with pytest.raises(PolicyError) as caught:
            outsiders_of(replace(estate, log=log), env)
        assert caught.value.code == code


def test_a_witnesss_folder_is_made_once(tmp_path: Path) -> None:
    """A second `init` over it is refused, so is one over a file; what is none says so; logs are added once each."""
    setup = WitnessFolder(tmp_path / "w")
    made = setup.begin("witness.example/w", lambda: datetime.now(UTC))
    assert setup.signer(lambda: datetime.now(UTC)).verifier == made.verifier
    with pytest.raises(PolicyError) as caught:
        setup.begin("witness.example/w", lambda: datetime.now(UTC))
    assert caught.value.code == "witness.exists"
    key = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    for _ in range(2):
        setup.add_log(key)
    assert [str(one.key) for one in setup.logs()["PeterNeumann"]] == [key]
    with pytest.raises(PolicyError) as caught:
        WitnessFolder(tmp_path).signer(lambda: datetime.now(UTC))
    assert caught.value.code == "witness.not_set_up"
    (tmp_path / "file").touch()
    with pytest.raises(PolicyError) as caught:
        WitnessFolder(tmp_path / "file").begin("witness.example/w", lambda: datetime.now(UTC))
    assert caught.value.code == "witness.no_folder"
