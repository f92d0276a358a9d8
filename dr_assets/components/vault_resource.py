"""The vault as a Dagster resource, over the S3 client that dagster-aws makes.

What belongs here: turning the declared variable *names* into values at run time, and opening the vault with them. What
stays out: everything the vault does. Nothing is read while definitions load, so they load offline.
"""

import os
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_aws.s3 import S3Resource

from dr_assets.estate.declarations import load_estate
from dr_assets.estate.errors import PolicyError
from dr_assets.estate.model import PostgresDataset, Role, TopicsDataset, VaultPlace
from dr_assets.estate.transport import require_tls
from dr_assets.proving.erasures import erasures_for, topic_eraser
from dr_assets.stores.kafka.erase import TopicEraser
from dr_assets.stores.postgres.erase import Erasures
from dr_assets.vault.connect import ca_file, client_of, open_vault
from dr_assets.vault.storage.s3 import make_client
from dr_assets.vault.vault import Vault


class VaultS3Resource(S3Resource):
    """dagster-aws's S3 resource with the client settings a vault needs: path style, pool, time-outs, retries."""

    def get_client(self) -> Any:
        """A boto3 S3 client; no request is made yet."""
        return make_client(
            self.endpoint_url,
            self.aws_access_key_id or "",
            self.aws_secret_access_key or "",
            region=self.region_name or "us-east-1",
            ca=ca_file(os.environ),
        )


class VaultResource(dg.ConfigurableResource):  # type: ignore[type-arg]  # a resource without a value type of its own
    """One of the estate's vaults. `open_vault` raises `PolicyError` or `VaultError`, never with a secret in it."""

    s3: VaultS3Resource
    vault_name: str
    defs_dir: str

    def open_vault(self, *, signing: bool = False, role: Role | None = None) -> Vault:
        """Open for reading, or with `signing` for sealing facts and backups as well, or for another duty (`role`)."""
        estate = load_estate(Path(self.defs_dir))
        endpoint = self.s3.endpoint_url or ""
        place = estate.vaults[self.vault_name]
        require_tls(endpoint, place.endpoint_env)
        duty: Role = role or ("writer" if signing else "reader")
        # The resource itself holds the reader's pair; the other duties' are read when a run needs them.
        client = self.s3.get_client() if duty == "reader" else client_of(place, os.environ, duty)
        return open_vault(estate, self.vault_name, os.environ, client=client, signing=signing, role=duty)

    def erasures(self, dataset: PostgresDataset, vault: Vault) -> Erasures:
        """What a restore of `dataset` from `vault` has to erase, by all regions that answer; raises as `gather`."""
        return erasures_for(load_estate(Path(self.defs_dir)), dataset, vault, os.environ)

    def topic_eraser(self, dataset: TopicsDataset, vault: Vault) -> TopicEraser | None:
        """The same for topics; None where nobody is erased or the dataset doesn't say whose a record is."""
        return topic_eraser(load_estate(Path(self.defs_dir)), dataset, vault, os.environ)


def resource_key(vault_name: str) -> str:
    """The key under which a vault is bound."""
    return f"vault_{vault_name}"


def vault_resource(place: VaultPlace, defs_dir: Path) -> VaultResource:
    """The resource for one declared vault; its credentials are filled in from the environment when a run needs them."""
    pair = place.roles.get("reader", place)
    s3 = VaultS3Resource(
        region_name=place.s3_region,
        endpoint_url=dg.EnvVar(place.endpoint_env),
        aws_access_key_id=dg.EnvVar(pair.access_key_env),
        aws_secret_access_key=dg.EnvVar(pair.secret_key_env),
    )
    return VaultResource(s3=s3, vault_name=place.name, defs_dir=str(defs_dir))


def read_env(variable: str) -> str:
    """The value of a declared variable, at run time. Raises `PolicyError` when it is not set; never shows a value."""
    value = os.environ.get(variable, "")
    if not value:
        raise PolicyError("policy.env_unset", f"{variable} is not set", "set it where Dagster's runs are started")
    return value
