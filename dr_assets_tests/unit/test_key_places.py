"""Declared key providers and signers: what is refused with its line, and what a host with some secrets can do."""

from pathlib import Path

import pytest

from dr_assets.estate.declarations import check_estate, load_estate
from dr_assets.estate.errors import PolicyError
from dr_assets.estate.key_places import BaoKeys, FileKeys, HsmKeys, KmsKeys
from dr_assets.estate.key_rules import demo_only
from dr_assets.vault.keys.file_provider import FileKeyProvider
from dr_assets.vault.keys.provider import WrapContext
from dr_assets.vault.keys.providers import LackingProvider, providers_of
from dr_assets_tests.unit.test_estate_declarations import ESTATE, LEDGER, declare

SHORT = "keys: {dir_env: KEYS, trust_file_env: TRUST, signing_key_env: SIGNER}"
LONG = """keys:
    trust_file_env: TRUST
    signer: {kind: pkcs11, module_env: HSM_MODULE, token: dr, pin_env: HSM_PIN, key: dr-sign, library_envs: [HSM_CONF]}
    providers:
      hsm: {kind: pkcs11, module_env: HSM_MODULE, token: dr, pin_env: HSM_PIN, key: dr-kek}
      kms: {kind: aws_kms, region: eu-central-1, key: alias/dr, access_key_env: K_ACCESS, secret_key_env: K_SECRET}
      bao: {kind: openbao, address_env: BAO_ADDR, key: dr-assets, role_id_env: BAO_ROLE, secret_id_env: BAO_SECRET}
      folder: {kind: file, dir_env: KEYS}"""
CONTEXT = WrapContext("casino", "ledger", "ab" * 16, 1)


def declared(folder: Path, keys: str, chosen: str = "") -> Path:
    """The estate with these keys, a ledger with this choice."""
    return declare(folder, estate=ESTATE.replace(SHORT, keys), ledger=LEDGER + chosen)


def refusals(folder: Path, keys: str, chosen: str = "") -> list[tuple[str, str]]:
    """Code and reason of each finding; every one has the line that its own file has it on."""
    findings = check_estate(declared(folder, keys, chosen))
    assert all(finding.line > 1 for finding in findings)
    return [(finding.code, finding.reason) for finding in findings]


def test_a_folder_alone_is_one_provider_called_file_and_says_so_loudly(tmp_path: Path) -> None:
    """The short form goes on meaning what it meant."""
    estate = load_estate(declared(tmp_path, SHORT))
    (only,) = estate.key_providers
    assert (only.name, only.place) == ("file", FileKeys("KEYS"))
    assert "NOT for production" in str(demo_only(estate))
    assert {"KEYS", "TRUST", "SIGNER"} <= set(estate.env_names())


def test_every_kind_is_accepted_and_its_variables_are_handed_on(tmp_path: Path) -> None:
    """A resident process is given the names of all of them; the secret ones are known as such."""
    estate = load_estate(declared(tmp_path, LONG, "  key_providers: [hsm, bao]\n"))
    kinds = {one.name: type(one.place) for one in estate.key_providers}
    assert kinds == {"hsm": HsmKeys, "kms": KmsKeys, "bao": BaoKeys, "folder": FileKeys}
    assert isinstance(estate.signer, HsmKeys)
    assert estate.datasets["ledger"].key_providers == ("hsm", "bao")
    assert demo_only(estate) is None
    needed = {"HSM_MODULE", "HSM_PIN", "HSM_CONF", "K_ACCESS", "K_SECRET", "BAO_ADDR", "BAO_ROLE", "BAO_SECRET", "KEYS"}
    assert needed <= set(estate.env_names())
    assert "" not in estate.env_names()
    assert set(estate.secret_key_envs()) == {"HSM_PIN", "K_ACCESS", "K_SECRET", "BAO_ROLE", "BAO_SECRET"}


@pytest.mark.parametrize(
    ("keys", "chosen", "code", "reason"),
    [
        ("keys: {trust_file_env: T, signing_key_env: S}", "", "policy.key_provider", "either `dir_env`"),
        (LONG.replace("keys:", "keys:\n    dir_env: KEYS", 1), "", "policy.key_provider", "either `dir_env`"),
        ("keys: {trust_file_env: T, dir_env: K}", "", "policy.signer", "either `signing_key_env`"),
        (LONG.replace("signer: {kind: pkcs11", "signer: {kind: file", 1), "", "policy.signer", "`signing_key_env`"),
        (SHORT, "  key_providers: [hsm]\n", "policy.key_provider", "no key provider `hsm`; the estate declares file"),
        (LONG, "  key_providers: [bao, bao]\n", "policy.key_provider", "listed twice"),
        (LONG.replace(", key: dr-kek", ""), "", "policy.missing", "a `pkcs11` needs `key`"),
        (LONG.replace("key: dr-kek", "key: dr-kek, region: x"), "", "policy.unknown_key", "`region` is not a key of"),
        (LONG.replace(", secret_key_env: K_SECRET", ""), "", "policy.missing", "come together"),
        (LONG.replace(", secret_id_env: BAO_SECRET", ""), "", "policy.missing", "either `token_env` or both"),
        (LONG.replace("kind: openbao", "kind: openbao, token_env: B"), "", "policy.missing", "either `token_env`"),
        (LONG.replace("kind: aws_kms", "kind: gcp_kms"), "", "policy.value", "gcp_kms"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, keys: str, chosen: str, code: str, reason: str) -> None:
    """Each with its code, and a reason that names what lacks."""
    found = refusals(tmp_path, keys, chosen)
    assert any(code == one and reason in text for one, text in found), found


def test_a_host_without_one_providers_secrets_opens_by_another(tmp_path: Path) -> None:
    """A second region's host holds its own region's secrets only; it opens, and nothing new is wrapped there."""
    estate = load_estate(declared(tmp_path, LONG))
    folder = tmp_path / "keys"
    wrapping = FileKeyProvider.create(folder).wrap(bytes(32), CONTEXT)
    providers = providers_of(estate, {"KEYS": str(folder)})
    assert [one.name for one in providers.every] == ["pkcs11/hsm", "aws_kms/kms", "openbao/bao", "file/folder"]
    lacking = [one for one in providers.every if isinstance(one, LackingProvider)]
    assert len(lacking) == 3
    for one in lacking:
        with pytest.raises(PolicyError, match="is not set") as caught:
            one.wrap(bytes(32), CONTEXT)
        assert one.name in caught.value.found
    assert providers.able("file")[0].unwrap(wrapping, CONTEXT) == bytes(32)


def test_a_host_with_no_providers_secrets_is_told_the_first(tmp_path: Path) -> None:
    """Before anything is opened."""
    estate = load_estate(declared(tmp_path, LONG))
    with pytest.raises(PolicyError, match="HSM_MODULE"):
        providers_of(estate, {})


def test_an_address_in_the_open_is_no_provider(tmp_path: Path) -> None:
    """A token must not travel unencrypted, whatever the variable holds."""
    estate = load_estate(declared(tmp_path, LONG))
    folder = tmp_path / "keys"
    FileKeyProvider.create(folder)
    env = {"KEYS": str(folder), "BAO_ADDR": "http://bao.example.net:8200", "BAO_ROLE": "r", "BAO_SECRET": "s"}
    bao = providers_of(estate, env).every[2]
    assert isinstance(bao, LackingProvider)
    assert bao.why.code == "policy.transport"
