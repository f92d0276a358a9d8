"""Where Dagster enters: the code location (workspace.yaml) and its instance's storage (dagster.yaml). Else: defs/."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage  # has no public name
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.utils import create_pg_connection, create_pg_engine, get_token_provider_from_config
from dagster_postgres.utils import pg_url_from_config as url_of
from sqlalchemy import text

VALIDATING = "DAGSTER_IS_DEFS_VALIDATION_CLI"  # set by `dg check defs` itself


@dg.definitions
def defs() -> dg.Definitions:
    """All assets, checks, jobs, schedules and sensors; reads no environment variable and reaches no network."""
    # Each job is one chain on one restore host: a process per step would only add start-up time to the RTO.
    in_process = dg.Definitions(executor=dg.in_process_executor)
    return dg.Definitions.merge(dg.load_from_defs_folder(path_within_project=Path(__file__).parent), in_process)


class InstanceStorage(DagsterPostgresStorage):
    """dagster-postgres, opened one at a time; while `dg check defs` validates, offline, it only reads dagster.yaml."""

    @classmethod
    def config_type(cls) -> Any:
        """dagster-postgres's own, whose `{env: …}` are only resolved when a storage is really wanted."""
        return dict if VALIDATING in os.environ else super().config_type()

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> Any:
        """The Postgres storage; while validating one that nobody will read."""
        if VALIDATING in os.environ:
            atexit.register(shutil.rmtree, folder := tempfile.mkdtemp(prefix="dg-check-"), ignore_errors=True)
            return DagsterSqliteStorage.from_local(folder, inst_data)
        engine = create_pg_engine(url_of(config_value), get_token_provider_from_config(config_value))
        with create_pg_connection(engine) as turn:  # two that both find no tables would both make them, and one fail
            turn.execute(text("SELECT pg_advisory_xact_lock(hashtext('dr_assets: the tables of Dagster'))"))
            return super().from_config_value(inst_data, config_value)
