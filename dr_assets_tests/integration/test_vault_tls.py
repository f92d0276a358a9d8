"""A vault behind https with a private authority: believed when named, refused when it is another one's."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dr_assets.engines.programs import Programs
from dr_assets.engines.seaweed import SeaweedRegion
from dr_assets.engines.throwaway_ca import make_certificates, write_authority
from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.estate.errors import VaultError
from dr_assets.vault.connect import CA_ENV, init_vault, open_vault
from dr_assets_tests.faults.vault.sample import put

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("vault-tls")]


@pytest.fixture(scope="module")
def tls_region(engines_dir: Path, weed_programs: Programs) -> Iterator[SeaweedRegion]:
    """A region whose S3 door speaks https."""
    with SeaweedRegion(engines_dir / "tls", "tls", weed_programs, tls=True) as region:
        region.start()
        yield region


def environment(region: SeaweedRegion, folder: Path, ca_file: Path) -> dict[str, str]:
    """A host that believes one authority."""
    # Both of the estate's vaults lie in the one bucket here: no test of this file is about copies.
    s3 = {"ENDPOINT": region.endpoint, "ACCESS_KEY": region.access_key, "SECRET_KEY": region.secret_key}
    return {
        **{f"DR_VAULT_{name}_{part}": value for name in ("PRIMARY", "STANDBY") for part, value in s3.items()},
        "DR_KEYS_DIR": str(folder / "secret" / "keys"),
        "DR_TRUST_FILE": str(folder / "trust.json"),
        "DR_SIGNING_KEY": str(folder / "secret" / "signing.pem"),
        CA_ENV: str(ca_file),
    }


def test_a_vault_works_over_tls_and_after_a_restart(tls_region: SeaweedRegion, tmp_path: Path) -> None:
    """The authority that the environment names is believed; a restarted region still shows the same certificate."""
    assert tls_region.endpoint.startswith("https://")
    assert tls_region.ca_file is not None
    env, estate = environment(tls_region, tmp_path, tls_region.ca_file), load_estate(default_defs_dir()).only("ledger")
    init_vault(estate, "primary", env)
    vault = open_vault(estate, "primary", env)
    put(vault, "wal", "wal", 0, 5, b"money")
    tls_region.kill()
    tls_region.start()
    (stored,) = open_vault(estate, "primary", env, signing=False).objects("ledger", "wal")
    assert vault.open(stored).plaintext == b"money"


def test_another_authority_is_not_believed(tls_region: SeaweedRegion, tmp_path: Path) -> None:
    """Whoever answers with a certificate that our authority did not sign gets no request: `vault.unreachable`."""
    stranger = tmp_path / "stranger.pem"
    write_authority(stranger, make_certificates("stranger")[0])
    env = environment(tls_region, tmp_path, stranger)
    with pytest.raises(VaultError) as caught:
        init_vault(load_estate(default_defs_dir()).only("ledger"), "primary", env)
    assert caught.value.code == "vault.unreachable"
    assert "SSLError" in str(caught.value)
