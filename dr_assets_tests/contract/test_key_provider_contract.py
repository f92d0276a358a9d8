"""What every key provider promises, whatever keeps its key: memory, files, an HSM, AWS KMS, OpenBao."""

import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from moto import mock_aws

from dr_assets.engines.openbao import BaoServer, find_bao
from dr_assets.engines.ports import LOOPBACK
from dr_assets.engines.softhsm import SoftHsm
from dr_assets.estate.errors import DrError, PolicyError, VaultError
from dr_assets.vault.keys.bao_client import BaoSession, Entry
from dr_assets.vault.keys.file_provider import FileKeyProvider
from dr_assets.vault.keys.kms_provider import KmsKeyProvider, kek_id_of_arn, kms_client
from dr_assets.vault.keys.memory_provider import MemoryKeyProvider
from dr_assets.vault.keys.openbao_provider import OpenBaoKeyProvider
from dr_assets.vault.keys.pkcs11_provider import Pkcs11KeyProvider
from dr_assets.vault.keys.pkcs11_token import Token, token_at
from dr_assets.vault.keys.provider import KeyProvider, WrapContext

if TYPE_CHECKING:
    from mypy_boto3_kms.client import KMSClient

pytestmark = pytest.mark.integration
SECRET = bytes(range(32))
CONTEXT = WrapContext("casino", "ledger", "ab" * 16, 1)
MOVED = [
    replace(CONTEXT, estate="other"),
    replace(CONTEXT, dataset="other"),
    replace(CONTEXT, key_id="cd" * 16),
    replace(CONTEXT, generation=2),
    replace(CONTEXT, purpose="person-key"),
]


@dataclass
class Case:
    """A provider, the same one opened anew, one of its kind with another key, and (where that can be) a dead one."""

    provider: KeyProvider
    again: KeyProvider
    stranger: KeyProvider
    dead: list[KeyProvider] = field(default_factory=list)
    refusing: list[KeyProvider] = field(default_factory=list)
    renew: Callable[[], object] | None = None
    hidden: list[str] = field(default_factory=list)


def in_memory() -> Case:
    """Keys of this process."""
    kek = os.urandom(32)
    return Case(MemoryKeyProvider(kek), MemoryKeyProvider(kek), MemoryKeyProvider(), hidden=[kek.hex()])


def in_files(folder: Path) -> Case:
    """Two folders."""
    one, two = FileKeyProvider.create(folder / "one"), FileKeyProvider.create(folder / "two")
    kek = (folder / "one" / "kek-0001.hex").read_text().strip()
    return Case(one, FileKeyProvider(folder / "one"), two, hidden=[kek])


def in_hsm(hsm: SoftHsm) -> Case:
    """Two tokens of a SoftHSM; a PIN that is wrong, a token that isn't there."""
    key = f"kek-{secrets.token_hex(4)}"
    providers = [Pkcs11KeyProvider(token_at(hsm.module, label, hsm.pin), key) for label in ("one", "one", "two")]
    providers[0].renew()
    providers[2].renew()
    absent = Pkcs11KeyProvider(Token(hsm.module, "unplugged", hsm.pin), key)
    no_key = Pkcs11KeyProvider(token_at(hsm.module, "one", hsm.pin), "no-such-kek")
    one, again, two = providers
    return Case(one, again, two, [absent], [no_key], one.renew, [hsm.pin])


def in_kms(deaf_port: int, shut_port: int) -> Case:
    """Keys in two regions of an AWS that moto plays; an endpoint where nobody listens, one that never answers."""

    def client_of(region: str, endpoint: str | None = None) -> "KMSClient":
        return kms_client(
            region,
            endpoint=endpoint,
            access_key="AKIAEXAMPLE",
            secret_key="do-not-print-kms",
            timeout_s=0.3 if endpoint else 60.0,
        )

    here, there = client_of("eu-central-1"), client_of("eu-west-1")
    keys = [client.create_key()["KeyMetadata"]["Arn"] for client in (here, there)]
    nowhere = client_of("eu-central-1", f"http://{LOOPBACK}:{shut_port}")
    silent = client_of("eu-central-1", f"http://{LOOPBACK}:{deaf_port}")
    unknown = KmsKeyProvider(here, "alias/absent")
    return Case(
        KmsKeyProvider(here, keys[0]),
        KmsKeyProvider(client_of("eu-central-1"), keys[0]),
        KmsKeyProvider(there, keys[1]),
        [KmsKeyProvider(nowhere, keys[0]), KmsKeyProvider(silent, keys[0])],
        [unknown],
        hidden=["do-not-print-kms"],
    )


def in_openbao(server: BaoServer, other: BaoServer, silent: int, shut_port: int) -> Case:
    """Two servers that hold a key of one name, entered by AppRole; a wrong pair, no server, a silent one."""
    for one in (server, other):
        one.make_key("dr-assets")
    role_id, secret_id = server.make_role()
    entry = Entry(role_id=role_id, secret_id=secret_id)
    wrong = Entry(role_id=role_id, secret_id="do-not-print-bao")

    def at(address: str, entry: Entry, key: str = "dr-assets") -> OpenBaoKeyProvider:
        return OpenBaoKeyProvider(BaoSession(address, entry, timeout_s=180.0), key)

    return Case(
        at(server.address, entry),
        at(server.address, entry),
        at(other.address, Entry(token=other.root_token)),
        [
            at(f"http://{LOOPBACK}:{shut_port}", entry),
            OpenBaoKeyProvider(BaoSession(f"http://{LOOPBACK}:{silent}", entry, timeout_s=0.3), "dr-assets"),
        ],
        [
            at(server.address, wrong),
            at(server.address, Entry(token="do-not-print-bao")),
            at(server.address, entry, "another-key"),
        ],
        at(server.address, Entry(token=server.root_token)).renew,
        [secret_id, server.root_token, "do-not-print-bao"],
    )


@pytest.fixture(params=["memory", "file", "pkcs11", "aws_kms", "openbao"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    """Each kind."""
    with ExitStack() as stack:
        deaf_port = stack.enter_context(closing(socket.create_server((LOOPBACK, 0)))).getsockname()[1]
        shut = stack.enter_context(socket.socket())  # taken, so that nobody else begins to listen there
        shut.bind((LOOPBACK, 0))
        shut_port = shut.getsockname()[1]
        match request.param:
            case "memory":
                yield in_memory()
            case "file":
                yield in_files(tmp_path)
            case "pkcs11":
                yield in_hsm(request.getfixturevalue("softhsm"))
            case "aws_kms":
                stack.enter_context(mock_aws())
                yield in_kms(deaf_port, shut_port)
            case _:
                make = request.getfixturevalue("bao_server")
                yield in_openbao(make(), make(), deaf_port, shut_port)


def test_the_contract(case: Case) -> None:
    """One promise after the other, over one set-up, since servers cost seconds."""
    wrapping = case.provider.wrap(SECRET, CONTEXT)
    assert SECRET not in wrapping.wrapped
    opens_again(case)
    refuses_what_was_moved_or_altered(case)
    tells_no_answer_from_no_key(case)
    renewed_wraps_anew_and_opens_the_old(case)
    hides_its_secrets(case)


def opens_again(case: Case) -> None:
    """What it wrapped it opens, after a restart too; each wrapping differs; its id is that of the key."""
    wrappings = [case.provider.wrap(SECRET, CONTEXT) for _ in range(2)]
    assert wrappings[0].wrapped != wrappings[1].wrapped
    assert {one.kek_id for one in wrappings} == {case.provider.kek_id}
    assert case.again.kek_id == case.provider.kek_id
    assert len(bytes.fromhex(case.provider.kek_id)) == 16
    assert [case.again.unwrap(one, CONTEXT) for one in wrappings] == [SECRET, SECRET]


def refuses_what_was_moved_or_altered(case: Case) -> None:
    """Bound to estate, dataset, key, generation and purpose; another key, or a flipped bit: wrong key."""
    wrapping = case.provider.wrap(SECRET, CONTEXT)
    attempts = [(case.provider, wrapping, moved) for moved in MOVED]
    attempts.append((case.stranger, wrapping, CONTEXT))
    flipped = bytearray(wrapping.wrapped)
    flipped[-1] ^= 1
    attempts.append((case.provider, replace(wrapping, wrapped=bytes(flipped)), CONTEXT))
    attempts.append((case.provider, replace(wrapping, wrapped=b""), CONTEXT))
    for provider, given, context in attempts:
        with pytest.raises(VaultError) as caught:
            provider.unwrap(given, context)
        assert caught.value.code == "vault.wrong_key"
    assert case.stranger.kek_id != case.provider.kek_id
    assert case.provider.unwrap(wrapping, CONTEXT) == SECRET


def tells_no_answer_from_no_key(case: Case) -> None:
    """Whoever is away says nothing of the key, in seconds; who refuses us is told as the operator's matter."""
    wrapping = case.provider.wrap(SECRET, CONTEXT)
    for dead in case.dead:
        attempts: list[Callable[[], object]] = [
            lambda: dead.unwrap(wrapping, CONTEXT),  # noqa: B023 - called in this turn of the loop
            lambda: dead.wrap(SECRET, CONTEXT),  # noqa: B023 - as above
            lambda: dead.kek_id,  # noqa: B023 - as above
        ]
        for attempt in attempts:
            with pytest.raises(VaultError) as caught:
                attempt()
            assert caught.value.code == "keys.unreachable"
            unshown(case, str(caught.value))
    for refusing in case.refusing:
        with pytest.raises(PolicyError) as refused:
            refusing.wrap(SECRET, CONTEXT)
        assert refused.value.code in {"keys.refused", "keys.no_kek"}
        unshown(case, str(refused.value))


def renewed_wraps_anew_and_opens_the_old(case: Case) -> None:
    """A new key-encryption key has another id; nothing that was wrapped is lost."""
    if case.renew is None:
        return
    before = case.provider.wrap(SECRET, CONTEXT)
    case.renew()
    after = case.provider.wrap(SECRET, CONTEXT)
    assert after.kek_id == case.provider.kek_id != before.kek_id
    assert [case.again.unwrap(one, CONTEXT) for one in (before, after)] == [SECRET, SECRET]


def hides_its_secrets(case: Case) -> None:
    """Neither a repr nor any error of this suite shows a key, a PIN or a token."""
    for provider in (case.provider, case.stranger, *case.dead, *case.refusing):
        unshown(case, repr(provider) + repr(vars(provider)))


def unshown(case: Case, text: str) -> None:
    """No secret in it."""
    assert not [secret for secret in (*case.hidden, SECRET.hex()) if secret in text]


def test_a_server_whose_port_was_taken_meanwhile_listens_on_another(
    tmp_path: Path, requires: Callable[..., None]
) -> None:
    """Between picking a port and listening on it anybody may take it; who has it is not taken for the server."""
    requires("bao")
    with BaoServer(tmp_path / "bao", find_bao()) as server:
        picked = server.port
        with socket.create_server((LOOPBACK, picked)):
            server.start()
        assert server.port != picked
        assert server.call("GET", "sys/health")["initialized"]


def test_a_role_whose_token_is_over_enters_again(bao_server: Callable[[], BaoServer]) -> None:
    """A capture runs for months, an AppRole's token for minutes."""
    server = bao_server()
    server.make_key("dr-assets")
    role_id, secret_id = server.make_role()
    session = BaoSession(server.address, Entry(role_id=role_id, secret_id=secret_id), timeout_s=180.0)
    provider = OpenBaoKeyProvider(session, "dr-assets")
    wrapping = provider.wrap(SECRET, CONTEXT)
    accessors = server.call("LIST", "auth/token/accessors")["data"]["keys"]
    for accessor in accessors:
        about = server.call("POST", "auth/token/lookup-accessor", {"accessor": accessor})["data"]
        if "capture" in about["policies"]:
            server.call("POST", "auth/token/revoke-accessor", {"accessor": accessor})
    assert provider.unwrap(wrapping, CONTEXT) == SECRET


def test_an_alias_that_moved_on_wraps_anew_and_opens_the_old() -> None:
    """How a KMS key is replaced: the declaration goes on naming the alias."""
    with mock_aws():
        client = kms_client("eu-central-1", access_key="AKIAEXAMPLE", secret_key="secret")
        keys = [client.create_key()["KeyMetadata"]["KeyId"] for _ in range(2)]
        client.create_alias(AliasName="alias/dr", TargetKeyId=keys[0])
        provider = KmsKeyProvider(client, "alias/dr")
        before = provider.wrap(SECRET, CONTEXT)
        client.update_alias(AliasName="alias/dr", TargetKeyId=keys[1])
        after = provider.wrap(SECRET, CONTEXT)
        assert before.kek_id != after.kek_id == provider.kek_id
        assert [provider.unwrap(one, CONTEXT) for one in (before, after)] == [SECRET, SECRET]
        relabelled = replace(before, kek_id=after.kek_id)
        with pytest.raises(VaultError, match="another key"):
            provider.unwrap(relabelled, CONTEXT)


def test_the_replicas_of_a_multi_region_key_are_one_key() -> None:
    """They open each other's wrappings; another account's or another key's don't."""
    here = kek_id_of_arn("arn:aws:kms:eu-central-1:111122223333:key/mrk-1")
    assert here == kek_id_of_arn("arn:aws:kms:eu-west-1:111122223333:key/mrk-1")
    assert here == kek_id_of_arn("arn:aws-cn:kms:cn-north-1:111122223333:key/mrk-1")
    assert here != kek_id_of_arn("arn:aws:kms:eu-central-1:111122223333:key/mrk-2")
    assert here != kek_id_of_arn("arn:aws:kms:eu-central-1:444455556666:key/mrk-1")


def test_no_repr_shows_how_a_server_is_entered() -> None:
    """Tracebacks with locals print these."""
    entry = Entry(token="do-not-print", role_id="do-not-print", secret_id="do-not-print")
    assert "do-not-print" not in repr([entry, BaoSession("http://127.0.0.1:9", entry)])


def test_a_token_that_hangs_is_given_up(softhsm: SoftHsm) -> None:
    """A library without time-outs must not hold up a restore that has another provider."""
    token, ended = Token(softhsm.module, "three", softhsm.pin, timeout_s=0.2), threading.Event()
    try:
        with pytest.raises(VaultError, match="unreachable") as caught:
            token.run("hsm", lambda _: ended.wait(600))
    finally:
        ended.set()
    assert softhsm.pin not in str(caught.value)


def test_a_wrong_pin_is_the_operators_matter(softhsm: SoftHsm) -> None:
    """Told apart from a token that is away, and not shown."""
    with pytest.raises(PolicyError, match="PIN") as caught:
        Token(softhsm.module, "four", "do-not-print", timeout_s=180.0).run("hsm", lambda _: None)
    assert caught.value.code == "keys.refused"
    assert "do-not-print" not in str(caught.value)


def test_a_key_that_could_be_read_out_of_a_token_is_refused(softhsm: SoftHsm) -> None:
    """An HSM protects nothing if its keys can leave it; ours can't."""
    import pkcs11  # noqa: PLC0415 - an extra

    token = token_at(softhsm.module, "two", softhsm.pin)
    key = f"open-{secrets.token_hex(4)}"
    provider = Pkcs11KeyProvider(token, key)
    provider.renew()

    def read_out(session: pkcs11.Session) -> None:
        (kek,) = session.get_objects({pkcs11.Attribute.LABEL: f"{key}-0001"})
        assert kek[pkcs11.Attribute.VALUE]

    with pytest.raises(pkcs11.exceptions.AttributeSensitive):
        token.run("hsm", read_out)
    extractable = {pkcs11.Attribute.EXTRACTABLE: True, pkcs11.Attribute.SENSITIVE: False}
    token.run(
        "hsm",
        lambda session: session.generate_key(
            pkcs11.KeyType.AES, 256, label=f"{key}-0002", id=b"2" * 16, store=True, template=extractable
        ),
    )
    with pytest.raises(PolicyError) as caught:
        provider.wrap(SECRET, CONTEXT)
    assert caught.value.code == "keys.extractable"


@pytest.mark.parametrize(
    ("hidden", "extra", "attempt"),
    [
        ("pkcs11", "hsm", lambda: Token(Path("/none"), "one", "pin").run("hsm", lambda _: None)),
        ("hvac", "openbao", lambda: BaoSession("http://127.0.0.1:9", Entry(token="t")).run("bao", lambda _: None)),
    ],
)
def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, hidden: str, extra: str, attempt: Callable[[], object]
) -> None:
    """Not a traceback of an import, but what to install."""
    monkeypatch.setitem(__import__("sys").modules, hidden, None)
    with pytest.raises(DrError) as caught:
        attempt()
    assert caught.value.code == "keys.extra_missing"
    assert f"dr_assets[{extra}]" in caught.value.hint
