"""A vault in two regions, wrapped by an HSM and by OpenBao: the first region's key service and store die.

Real SeaweedFS, real SoftHSM2, a real `bao`; opened by the declaration, as capture and restore do it.
"""

import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dr_assets.engines.openbao import BaoServer
from dr_assets.engines.seaweed import SeaweedRegion
from dr_assets.engines.softhsm import SoftHsm
from dr_assets.estate.declarations import load_estate
from dr_assets.estate.errors import VaultError
from dr_assets.estate.model import Estate
from dr_assets.vault.connect import init_vault, open_vault
from dr_assets.vault.facts import latest_fact, record_fact
from dr_assets.vault.vault import Vault
from dr_assets_tests.unit.test_estate_declarations import ESTATE, LEDGER, declare
from dr_assets_tests.unit.test_key_places import SHORT

pytestmark = pytest.mark.integration

KEYS = """keys:
    trust_file_env: TRUST
    signer: {{kind: pkcs11, module_env: HSM_MODULE, token: one, pin_env: HSM_PIN, key: {signing}}}
    providers:
      bao: {{kind: openbao, address_env: BAO_ADDR, key: dr-assets, role_id_env: BAO_ROLE, secret_id_env: BAO_SECRET}}
      hsm: {{kind: pkcs11, module_env: HSM_MODULE, token: one, pin_env: HSM_PIN, key: {wrapping}}}"""


class Site:
    """Two buckets, one of them the second region's; a bao that can be killed; a token that stays."""

    def __init__(self, folder: Path, region: SeaweedRegion, hsm: SoftHsm, bao: BaoServer) -> None:
        name = secrets.token_hex(4)
        keys = KEYS.format(signing=f"sign-{name}", wrapping=f"kek-{name}")
        text = ESTATE.replace(SHORT, keys).replace("vault-a", f"first-{name}").replace("vault-b", f"second-{name}")
        self.estate: Estate = load_estate(
            declare(folder, estate=text, ledger=LEDGER.replace("lock: compliance", "lock: governance"))
        )
        bao.make_key("dr-assets")
        role_id, secret_id = bao.make_role()
        self.bao = bao
        self.env = {
            "TRUST": str(folder / "trust.json"),
            "HSM_MODULE": str(hsm.module),
            "HSM_PIN": hsm.pin,
            "BAO_ADDR": bao.address,
            "BAO_ROLE": role_id,
            "BAO_SECRET": secret_id,
        }
        for prefix in ("A", "B"):
            self.env |= {
                f"{prefix}_ENDPOINT": region.endpoint,
                f"{prefix}_ACCESS": region.access_key,
                f"{prefix}_SECRET": region.secret_key,
            }
        self.said = [init_vault(self.estate, vault, self.env) for vault in ("primary", "standby")]

    def vault(self, name: str = "primary", **env: str) -> Vault:
        """Opened anew, as by a process that just started."""
        return open_vault(self.estate, name, self.env | env)


@pytest.fixture
def site(tmp_path: Path, region: SeaweedRegion, softhsm: SoftHsm, bao_server: Callable[[], BaoServer]) -> Site:
    """Set up, with nothing sealed yet."""
    return Site(tmp_path, region, softhsm, bao_server())


def sealed(vault: Vault, text: bytes, first: int) -> str:
    """One piece of WAL as a capture seals it; its name."""
    now = datetime.now(UTC)
    made = vault.prepare(
        dataset="ledger", stream="wal", kind="wal", system_id="1", timeline=1, first=first, last=first + len(text),
        begin_at=now, end_at=now, plaintext=text,
    ).seal()  # fmt: skip
    vault.put(made, vault.locks.lock("ledger", "wal", now))
    return str(made.key)


def test_the_first_key_service_dies_and_the_vault_opens_by_the_second(site: Site) -> None:
    """Capture seals, bao is killed: what was sealed opens by the HSM, sealing goes on, no new data key is made."""
    assert any("created in token one" in line for line in site.said[0])
    assert not any("NOT for production" in line for line in site.said[0])
    name = sealed(site.vault(), b"money", 0)
    site.bao.kill()
    vault = site.vault()
    assert [vault.open(obj).plaintext for obj in vault.objects("ledger", "wal")] == [b"money"]
    sealed(vault, b"more money", 5)
    vault.keys.settle()
    assert "openbao/bao does not answer" in vault.keys.trouble["ledger"].found  # told, and it stopped nobody
    assert [site.vault().open(obj).plaintext for obj in site.vault().objects("ledger", "wal")] == [
        b"money",
        b"more money",
    ]
    with pytest.raises(VaultError) as caught:
        record_fact(site.vault(), "new_dataset", "write_probe", {"why": "its first key"})
    assert caught.value.code == "keys.not_everywhere"
    assert "openbao/bao" in caught.value.found
    assert name.startswith("casino/ledger/wal/")


def test_the_second_region_opens_when_the_first_ones_store_and_key_service_are_gone(site: Site) -> None:
    """Key objects lie there since before the first use, though nobody has replicated anything yet."""
    first = site.vault()
    record_fact(first, "ledger", "snapshot", {"size_bytes": 1})
    wrapped = {str(key) for key, _ in first.keys.wrappings("ledger")}
    assert len(wrapped) == 2
    site.bao.kill()
    nowhere = {"A_ENDPOINT": "http://127.0.0.1:9", "BAO_ADDR": "http://127.0.0.1:9"}
    second = site.vault("standby", **nowhere)
    assert {str(key) for key, _ in second.keys.wrappings("ledger")} == wrapped
    key_id = next(held.context.key_id for _, held in second.keys.wrappings("ledger"))
    assert second.keys.by_id("ledger", key_id) == first.keys.by_id("ledger", key_id)


def test_each_provider_alone_opens_and_none_is_told_apart(site: Site) -> None:
    """Without the HSM's PIN bao opens; without either, the operator is told what lacks, not that the vault is bad."""
    vault = site.vault()
    record_fact(vault, "ledger", "snapshot", {"size_bytes": 1})
    reader = open_vault(site.estate, "primary", site.env | {"HSM_PIN": ""}, signing=False)
    assert latest_fact(reader, "ledger", "snapshot") is not None
    site.bao.kill()
    dark = open_vault(site.estate, "primary", site.env | {"HSM_PIN": ""}, signing=False)
    with pytest.raises(VaultError) as caught:
        latest_fact(dark, "ledger", "snapshot")
    assert caught.value.code == "keys.unreachable"
    assert site.env["BAO_SECRET"] not in str(caught.value)
