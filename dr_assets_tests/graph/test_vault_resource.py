from pathlib import Path

import dagster as dg
import pytest
from dagster_aws.s3 import S3Resource

from dr_assets.components.vault_resource import VaultResource, read_env, vault_resource
from dr_assets.estate.declarations import default_defs_dir
from dr_assets.estate.errors import PolicyError
from dr_assets.estate.model import Estate


@pytest.fixture
def resource(estate: Estate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> VaultResource:
    """The primary vault's resource, its variables set as a deployment sets them; no store is running."""
    place = estate.vaults["primary"]
    monkeypatch.setenv(place.endpoint_env, "http://127.0.0.1:9")
    monkeypatch.setenv(place.roles["reader"].access_key_env, "access")
    monkeypatch.setenv(place.roles["reader"].secret_key_env, "s3cret")
    monkeypatch.setenv(estate.keys_dir_env, str(tmp_path))
    return vault_resource(place, default_defs_dir())


def opened(resource: VaultResource) -> VaultResource:
    """The resource as a run gets it, with its variables filled in."""
    with dg.build_resources({"vault": resource}) as resources:
        made: VaultResource = resources.vault
        return made


def test_its_client_is_dagster_aws_with_the_vaults_settings(resource: VaultResource) -> None:
    """Dagster code gets its S3 client from S3Resource: path style, so that any S3 store works, at the set endpoint."""
    made = opened(resource)
    assert isinstance(made.s3, S3Resource)
    client = made.s3.get_client()
    assert client.meta.endpoint_url == "http://127.0.0.1:9"
    assert client.meta.config.s3["addressing_style"] == "path"


def test_an_endpoint_in_the_open_is_refused(
    resource: VaultResource, estate: Estate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the declaration can't show, the run-time check catches: a variable that holds a plain-text endpoint."""
    monkeypatch.setenv(estate.vaults["primary"].endpoint_env, "http://s3.example.net")
    with pytest.raises(PolicyError) as refused:
        opened(resource).open_vault()
    assert refused.value.code == "policy.transport"
    assert "DR_VAULT_PRIMARY_ENDPOINT" in str(refused.value)


def test_a_bad_file_of_authorities_is_told_and_an_empty_one_is_none(
    resource: VaultResource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty variable is no file; one that does not exist is the operator's to mend, in one clear line."""
    monkeypatch.setenv("DR_ASSETS_S3_CA", "")
    assert opened(resource).s3.get_client().meta.endpoint_url == "http://127.0.0.1:9"
    monkeypatch.setenv("DR_ASSETS_S3_CA", "/nonesuch/ca.pem")
    with pytest.raises(PolicyError) as refused:
        opened(resource).s3.get_client()
    assert refused.value.code == "vault.bad_ca"


def test_a_variable_that_is_not_set_is_named(resource: VaultResource, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading needs no variable; using the resource without one says which."""
    monkeypatch.delenv("DR_VAULT_PRIMARY_ENDPOINT")
    with pytest.raises(dg.DagsterInvalidConfigError, match="DR_VAULT_PRIMARY_ENDPOINT"):
        opened(resource)
    with pytest.raises(PolicyError, match="LEDGER_DSN is not set"):
        read_env("LEDGER_DSN")
