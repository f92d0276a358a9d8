"""The vault on a real S3 store: set-up, refusals in clear words, retries, and one whole life of an object."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from dr_assets.engines.ports import free_ports
from dr_assets.engines.seaweed import SeaweedRegion
from dr_assets.estate.errors import DrError, PolicyError, VaultError
from dr_assets.estate.model import (
    TIERS,
    Alerts,
    Drill,
    Estate,
    Licence,
    Location,
    PostgresDataset,
    RestoreTest,
    Retention,
    Snapshot,
    VaultPlace,
)
from dr_assets.vault.connect import init_vault, open_vault, utc_now
from dr_assets.vault.facts import latest_fact, record_fact
from dr_assets.vault.inventory import record_inventory
from dr_assets.vault.storage.s3 import S3Store, make_client
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.verify import verify
from dr_assets_tests.faults.vault.s3_proxy import LyingProxy
from dr_assets_tests.faults.vault.sample import put

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("vault-seaweed")]


def estate_of(bucket: str) -> Estate:
    """One vault, one dataset under a compliance lock."""
    here = Location("local", "one", "MT")
    ledger = PostgresDataset(
        name="ledger", kind="postgres", tier=TIERS["player_ledger"], dsn_env="DSN", slot="s",
        rpo=timedelta(seconds=30), rto=timedelta(minutes=15), snapshot=Snapshot(timedelta(days=1)),
        retention=Retention("compliance", 30, 30), location=here, vault="primary", replicas=(),
        restore_test=RestoreTest("0 3 * * *", "casino_ledger"), drill=Drill("0 4 1 * *", timedelta(days=35)),
        owners=("team:platform",), exception=None, linger=timedelta(milliseconds=500), source=Path("x"), line=1,
    )  # fmt: skip
    place = VaultPlace("primary", here, bucket, "S3_ENDPOINT", "S3_ACCESS_KEY", "S3_SECRET_KEY")
    return Estate(
        name="casino", licence=Licence("MGA", ("MT",)), vaults={"primary": place}, datasets={"ledger": ledger},
        alerts=Alerts(), keys_dir_env="KEYS_DIR", trust_file_env="TRUST", signing_key_env="SIGNING_KEY",
        owners=("team:platform",),
    )  # fmt: skip


@pytest.fixture
def env(region: SeaweedRegion, tmp_path: Path) -> dict[str, str]:
    """What a host has in its environment."""
    return {
        "S3_ENDPOINT": region.endpoint,
        "S3_ACCESS_KEY": region.access_key,
        "S3_SECRET_KEY": region.secret_key,
        "KEYS_DIR": str(tmp_path / "secret" / "keys"),
        "TRUST": str(tmp_path / "trust.json"),
        "SIGNING_KEY": str(tmp_path / "secret" / "signing.pem"),
    }


@pytest.fixture
def proxy(region: SeaweedRegion) -> Iterator[LyingProxy]:
    """Before the region."""
    with LyingProxy(region.endpoint) as proxy:
        yield proxy


def code(attempt: Callable[[], object], kind: type[DrError] = VaultError) -> str:
    """With what an attempt is refused; there is always a hint."""
    with pytest.raises(kind) as caught:
        attempt()
    assert "HINT: " in str(caught.value)
    return caught.value.code


def test_a_vault_is_made_once_and_used_from_then_on(env: dict[str, str]) -> None:
    """`init` makes bucket and keys, says that file keys are for demos, and changes nothing the second time."""
    estate = estate_of("vault-life")
    said = init_vault(estate, "primary", env)
    assert "created" in said[0]
    assert any("NOT for production" in line for line in said)
    again = init_vault(estate, "primary", env)
    assert not any("created in" in line for line in again)
    vault = open_vault(estate, "primary", env)
    vault.check_clock()
    sealed = put(vault, "wal", "wal", 0, 5, b"money")
    record_fact(vault, "ledger", "drill", {"n": 1})
    record_inventory(vault, "ledger", settled=timedelta())
    reader = open_vault(estate, "primary", env, signing=False)
    (obj,) = reader.objects("ledger", "wal")
    assert reader.open(obj).plaintext == b"money"
    assert reader.header(obj) == sealed.header
    fact = latest_fact(reader, "ledger", "drill")
    assert fact is not None
    assert fact.body == {"n": 1}
    report = verify(reader)
    assert report.findings == ()
    assert report.objects_total == report.objects_locked == 4
    head = reader.store.head(str(sealed.key))
    assert head is not None
    assert head.lock is not None
    assert head.lock.mode == "COMPLIANCE"
    assert head.lock.retain_until - utc_now() > timedelta(days=37)
    assert code(lambda: put(reader, "wal", "wal", 5, 6, b"x"), PolicyError) == "vault.read_only"


def test_refused_credentials_are_told_at_once(env: dict[str, str], proxy: LyingProxy) -> None:
    """A wrong secret, a stranger's key: one request each, no retries, a clear word."""
    init_vault(estate_of("vault-refused"), "primary", env)
    for access, secret in ((env["S3_ACCESS_KEY"], "wrong"), ("nobody", "wrong")):
        store = S3Store(make_client(proxy.endpoint, access, secret), "vault-refused")
        for attempt in (
            lambda: put(throwaway_vault(store=store), "wal", "wal", 0, 1, b"x"),  # noqa: B023 - called right here
            lambda: store.head("x"),  # noqa: B023
            lambda: store.get("x"),  # noqa: B023
            lambda: list(store.list_versions("x")),  # noqa: B023
            store.bucket_state,
        ):
            before = proxy.requests
            assert code(attempt) == "vault.refused_credentials"
            assert proxy.requests == before + 1


def test_an_endpoint_that_does_not_answer_is_unreachable(env: dict[str, str]) -> None:
    """Nobody listens there."""
    env["S3_ENDPOINT"] = f"http://127.0.0.1:{free_ports(1)[0]}"
    store = S3Store(make_client(env["S3_ENDPOINT"], "a", "b", attempts=2), "x")
    for attempt in (lambda: store.head("x"), lambda: list(store.list_versions("")), lambda: store.get("x")):
        assert code(attempt) == "vault.unreachable"


def test_a_missing_or_unprotected_bucket_is_told_and_nothing_is_put(
    env: dict[str, str], region: SeaweedRegion, bucket: Callable[..., str]
) -> None:
    """Some stores make a bucket at the first put, without any lock: that is not let happen."""
    absent = throwaway_vault(store=S3Store(region.client(), "nonesuch"))
    assert code(lambda: put(absent, "wal", "wal", 0, 1, b"x")) == "vault.no_bucket"
    assert code(lambda: list(absent.objects())) == "vault.no_bucket"
    assert code(lambda: verify(absent)) == "vault.no_bucket"
    assert "nonesuch" not in {found["Name"] for found in region.client().list_buckets()["Buckets"]}
    bare = bucket(object_lock=False)
    unprotected = throwaway_vault(store=S3Store(region.client(), bare))
    assert code(lambda: put(unprotected, "wal", "wal", 0, 1, b"x")) == "vault.bucket_unprotected"
    assert code(lambda: init_vault(estate_of(bare), "primary", env)) == "vault.bucket_unprotected"


def test_settings_that_lack_are_named(env: dict[str, str]) -> None:
    """Each variable by its name, and an address that is none."""
    estate = estate_of("vault-settings")
    init_vault(estate, "primary", env)
    for name in env:
        lacking = {key: text for key, text in env.items() if key != name}
        with pytest.raises(PolicyError, match=name):
            open_vault(estate, "primary", lacking)
    assert code(lambda: open_vault(estate, "primary", env | {"S3_ENDPOINT": "nowhere"}), PolicyError) == (
        "vault.bad_endpoint"
    )
    assert code(lambda: open_vault(estate, "other", env), PolicyError) == "vault.unknown"
    assert code(lambda: open_vault(estate, "primary", env | {"KEYS_DIR": "/nowhere"}), PolicyError) == "keys.no_kek"


def test_a_busy_store_is_asked_again(env: dict[str, str], proxy: LyingProxy) -> None:
    """503 and bodies that break off are retried; a put that went through before its answer was lost counts once."""
    init_vault(estate_of("vault-busy"), "primary", env)
    client = make_client(proxy.endpoint, env["S3_ACCESS_KEY"], env["S3_SECRET_KEY"])
    vault = throwaway_vault(store=S3Store(client, "vault-busy"))
    vault.keys.for_writing("ledger")
    proxy.hiccups = ["busy"]
    sealed = put(vault, "wal", "wal", 0, 300_000, b"money" * 60_000)
    assert not proxy.hiccups
    (obj,) = vault.objects()
    proxy.hiccups = ["cut", "busy", "cut"]
    assert vault.fetch(obj) == sealed.data
    assert not proxy.hiccups
    (name,) = vault.names("casino/ledger/wal/")
    assert len(name.versions) == 1
    proxy.hiccups = ["cut"] * 3
    assert code(lambda: vault.fetch(obj)) == "vault.unreachable"
