"""What every verb needs: the estate's declarations, the environment, the vault, and dataset names checked early.

What belongs here: shared options and look-ups. What stays out: output.
"""

import os
from pathlib import Path
from typing import Annotated

import typer

from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.estate.errors import PolicyError
from dr_assets.estate.model import BucketDataset, Dataset, Estate, PostgresDataset, Role, TopicsDataset
from dr_assets.stores.postgres.patroni import parse_urls
from dr_assets.vault.connect import open_vault
from dr_assets.vault.vault import Vault

DefsOption = Annotated[
    Path | None,
    typer.Option("--defs", envvar="DR_ASSETS_DEFS", help="folder of the declarations; the packaged estate by default"),
]
DatasetArgument = Annotated[str, typer.Argument(metavar="DATASET", help="a dataset that the estate declares")]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON for machines instead of text for people")]


def estate_of(defs: Path | None) -> Estate:
    """The declared estate, or a PolicyError that lists every finding with file and line."""
    return load_estate(defs if defs is not None else default_defs_dir())


def dataset_of(estate: Estate, name: str) -> Dataset:
    """The named dataset, or a PolicyError that lists those there are."""
    dataset = estate.datasets.get(name)
    if dataset is None:
        known = ", ".join(sorted(estate.datasets)) or "none"
        raise PolicyError("cli.unknown_dataset", f"no dataset is called '{name}'", f"declared datasets: {known}")
    return dataset


def postgres_of(estate: Estate, name: str) -> PostgresDataset:
    """The named database, or a PolicyError for a dataset of another kind."""
    dataset = dataset_of(estate, name)
    if not isinstance(dataset, PostgresDataset):
        raise _wrong_kind(dataset, "a Postgres database", list(estate.postgres()))
    return dataset


def topics_of(estate: Estate, name: str) -> TopicsDataset:
    """The named topics, or a PolicyError for a dataset of another kind."""
    dataset = dataset_of(estate, name)
    if not isinstance(dataset, TopicsDataset):
        raise _wrong_kind(dataset, "topics of Kafka", list(estate.topics()))
    return dataset


def bucket_of(estate: Estate, name: str) -> BucketDataset:
    """The named bucket, or a PolicyError for a dataset of another kind."""
    dataset = dataset_of(estate, name)
    if not isinstance(dataset, BucketDataset):
        raise _wrong_kind(dataset, "a bucket", list(estate.buckets()))
    return dataset


def _wrong_kind(dataset: Dataset, wanted: str, known: list[str]) -> PolicyError:
    return PolicyError(
        "cli.wrong_kind",
        f"'{dataset.name}' is of kind {dataset.kind}, this is for {wanted}",
        f"declared of that kind: {', '.join(sorted(known)) or 'none'}",
    )


def dsn_in(variable: str) -> str:
    """A connection string, by its variable's name: none is taken from the command line, where others could read it."""
    dsn = os.environ.get(variable)
    if not dsn:
        raise PolicyError(
            "cli.dsn_missing", f"{variable} is not set", f"export {variable}='host=… dbname=… user=…', or name another"
        )
    return dsn


def dsn_of(dataset: PostgresDataset) -> str:
    """The source's connection string, from the variable that the declaration names."""
    dsn = os.environ.get(dataset.dsn_env)
    if not dsn:
        raise PolicyError(
            "cli.dsn_missing",
            f"{dataset.dsn_env} is not set, so the source of '{dataset.name}' can't be reached",
            f"export {dataset.dsn_env}='host=… dbname=… user=…' (for the embedded estate: set -a; . .demo/env)",
        )
    return dsn


def patroni_of(dataset: PostgresDataset) -> tuple[str, ...]:
    """The base URLs of Patroni's REST endpoints, from the variable that the declaration names; none without one."""
    if dataset.patroni_env is None:
        return ()
    listed = os.environ.get(dataset.patroni_env)
    if not listed:
        raise PolicyError(
            "cli.patroni_missing",
            f"{dataset.patroni_env} is not set, so nobody says which server of '{dataset.name}' leads",
            f"export {dataset.patroni_env}=https://db1:8008,https://db2:8008, or declare no `patroni_env`",
        )
    return parse_urls(listed)


def spool_dir_of(dataset: PostgresDataset) -> Path | None:
    """The folder for pieces that the vault can't take yet, from the variable that the declaration names."""
    if dataset.spool is None:
        return None
    folder = os.environ.get(dataset.spool.dir_env)
    if not folder:
        raise PolicyError(
            "cli.spool_missing",
            f"{dataset.spool.dir_env} is not set, so pieces of '{dataset.name}' have no place to wait for the vault",
            f"export {dataset.spool.dir_env}=/var/lib/dr-assets/spool, or declare no `spool`",
        )
    return Path(folder)


def vault_of(estate: Estate, name: str, *, signing: bool, role: Role | None = None) -> Vault:
    """The named vault, opened for one duty with the credentials and keys that the environment names.

    Without a `role` the duty is to write where something is signed, else to read.
    """
    if name not in estate.vaults:
        known = ", ".join(sorted(estate.vaults))
        raise PolicyError("cli.unknown_vault", f"no vault is called '{name}'", f"declared vaults: {known}")
    return open_vault(estate, name, os.environ, signing=signing, role=role or ("writer" if signing else "reader"))
