"""Key providers that fail in odd ways: hang, refuse what was never made, die while a secret is being written."""

import os
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hvac.exceptions import InvalidRequest
from pkcs11.exceptions import GeneralError

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.vault.keys import pkcs11_token
from dr_assets.vault.keys.bao_client import BaoSession, Entry
from dr_assets.vault.keys.openbao_provider import OpenBaoKeyProvider
from dr_assets.vault.keys.pkcs11_provider import Pkcs11KeyProvider
from dr_assets.vault.keys.pkcs11_token import Token
from dr_assets.vault.keys.provider import KeyProvider, WrapContext, Wrapping
from dr_assets.vault.keys.secret_file import read_secret, write_secret

Result = TypeVar("Result")


class NoSuchKey(BaoSession):
    """A server that knows no key of the name that it is asked for."""

    def run(self, _who: str, _work: Callable[[Any], Result]) -> Result:
        """Answer as transit does."""
        raise InvalidRequest("encryption key not found")


class Broken(Token):
    """A token whose every answer is that something is wrong."""

    def run(self, _who: str, _work: Callable[[Any], Result]) -> Result:
        """Answer so."""
        raise GeneralError


def test_a_key_that_is_not_there_is_the_operators_matter() -> None:
    """Whoever asks for the id of a declared key learns what is wrong; nobody meets the library's own exception."""
    bao = OpenBaoKeyProvider(NoSuchKey("http://127.0.0.1:1", Entry(token="t")), "absent")
    token = Pkcs11KeyProvider(Broken(Path("/none"), "dr-assets", "0000"), "dr-kek")
    asks: list[Callable[[], str]] = [lambda: bao.kek_id, bao.renew, lambda: token.kek_id]
    for ask in asks:
        with pytest.raises(PolicyError, match=r"keys\.refused"):
            ask()


@pytest.mark.parametrize(("hidden", "extra"), [("pkcs11", "hsm"), ("hvac", "openbao")])
def test_a_provider_whose_library_lacks_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, hidden: str, extra: str
) -> None:
    """Not a traceback of an import: whatever is asked of it first."""
    monkeypatch.setitem(sys.modules, hidden, None)
    providers: dict[str, KeyProvider] = {
        "pkcs11": Pkcs11KeyProvider(Token(Path("/none"), "dr-assets", "0000"), "dr-kek"),
        "hvac": OpenBaoKeyProvider(BaoSession("http://127.0.0.1:1", Entry(token="t")), "dr-kek"),
    }
    provider = providers[hidden]
    context = WrapContext("casino", "ledger", "00" * 16, 1)
    asks: list[Callable[[], object]] = [
        lambda: provider.kek_id,
        lambda: provider.wrap(bytes(32), context),
        lambda: provider.unwrap(Wrapping("00" * 16, b"vault:v1:AAAA"), context),
    ]
    for ask in asks:
        with pytest.raises(PolicyError, match=r"keys\.extra_missing") as caught:
            ask()
        assert f"dr_assets[{extra}]" in caught.value.hint


class Library:
    """A PKCS#11 library whose token hands out anything as a session."""

    def get_token(self, **_more: object) -> "Library":
        """The only token."""
        return self

    def open(self, **_more: object) -> "Library":
        """A session."""
        return self


def test_a_library_that_hangs_while_it_starts_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A vendor's library may look for its module over the network in its first call."""
    ended = threading.Event()

    def start(_who: str, _module: Path) -> Library:
        ended.wait(600)
        return Library()

    monkeypatch.setattr(pkcs11_token, "_library", start)
    try:
        with pytest.raises(VaultError, match=r"keys\.unreachable"):
            Token(tmp_path, "dr-assets", "0000", timeout_s=0.05).run("hsm", lambda _session: None)
    finally:
        ended.set()


def test_a_token_that_hangs_gathers_no_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A capture asks every half minute for as long as the token is away: only the call that hangs may stay."""
    monkeypatch.setattr(pkcs11_token, "_library", lambda _who, _module: Library())
    token, begun, ended = Token(tmp_path, "dr-assets", "0000", timeout_s=0.05), threading.Event(), threading.Event()
    before = set(threading.enumerate())

    def hangs(_session: object) -> None:
        begun.set()
        ended.wait(600)

    try:
        with pytest.raises(VaultError, match=r"keys\.unreachable"):
            token.run("hsm", hangs)
        assert begun.wait(180)  # given up before it began, it would not keep the next ones waiting yet
        hanging = set(threading.enumerate()) - before
        for _ in range(5):
            with pytest.raises(VaultError, match=r"keys\.unreachable"):
                token.run("hsm", lambda _session: None)
        waiting = set(threading.enumerate()) - before - hanging
        for thread in waiting:
            thread.join(180)
        assert not [thread for thread in waiting if thread.is_alive()]
    finally:
        ended.set()


def test_a_secret_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while it is written, half a key stands in nobody's way; once written, its name outlives a power cut."""
    path, synced = tmp_path / "keys" / "kek-0001.hex", list[bool]()
    sync = os.fsync

    def killed(_descriptor: int) -> None:
        raise KeyboardInterrupt

    def seen(descriptor: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        write_secret(path, b"half")
    assert not path.exists()
    monkeypatch.setattr(os, "fsync", seen)
    write_secret(path, b"whole")
    assert synced == [False, True]
    assert read_secret(path, "key") == b"whole"
    with pytest.raises(FileExistsError):
        write_secret(path, b"another")
    assert read_secret(path, "key") == b"whole"


def test_a_disk_without_links_takes_a_secret_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An escrow goes to a stick, and sticks know no links."""

    def refused(_source: object, _target: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refused)
    write_secret(tmp_path / "escrow.age", b"sealed")
    assert read_secret(tmp_path / "escrow.age", "escrow") == b"sealed"
    assert [path.name for path in tmp_path.iterdir()] == ["escrow.age"]
    with pytest.raises(FileExistsError):
        write_secret(tmp_path / "escrow.age", b"another")
