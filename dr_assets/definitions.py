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

VALIDATING = "DAGSTER_IS_DEFS_VALIDATION_CLI"  # set by `dg check defs` itself


@dg.definitions
def defs() -> dg.Definitions:
    """All assets, checks, jobs, schedules and sensors; reads no environment variable and reaches no network."""
    # Each job is one chain on one restore host: a process per step would only add start-up time to the RTO.
    in_process = dg.Definitions(executor=dg.in_process_executor)
    return dg.Definitions.merge(dg.load_from_defs_folder(path_within_project=Path(__file__).parent), in_process)


class InstanceStorage(DagsterPostgresStorage):
    """dagster-postgres, except while `dg check defs` validates: it reads dagster.yaml too, and must work offline."""

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
        return super().from_config_value(inst_data, config_value)
