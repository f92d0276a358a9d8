"""The component `ProtectedPostgres`: one stanza makes a database's whole recovery chain.

What belongs here: putting the parts together. What stays out: the parts (postgres_*.py) and the policy's rules
(estate/), which judge the same declaration for the command line and the capture.
"""

from typing import Self

import dagster as dg
from pydantic import BaseModel

from dr_assets.components.chain_events import chain_event_checks
from dr_assets.components.labels import artefact_key
from dr_assets.components.lineage_sensor import lineage_sensor
from dr_assets.components.parts import Parts
from dr_assets.components.postgres_assets import restore_test_assets, snapshot_asset, wal_chain_spec
from dr_assets.components.postgres_checks import wal_chain_checks
from dr_assets.components.postgres_jobs import dataset_jobs, dataset_schedules
from dr_assets.components.proven import proven_parts
from dr_assets.components.restore_sensor import restore_when_stale_sensor
from dr_assets.components.roll_up import roll_up_parts
from dr_assets.components.rpo_sensor import rpo_sensor, standing_of
from dr_assets.components.stored_checks import stored_checks
from dr_assets.estate.declarations import PostgresDeclaration, load_estate
from dr_assets.estate.model import PostgresDataset


class ProtectedPostgres(dg.Component):
    """A Postgres database under protection: base backups, WAL chain, restore tests, reconciliation, their checks."""

    def __init__(self, dataset: PostgresDataset) -> None:
        self.dataset = dataset

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """The estate's own schema, so that editor, `dg check yaml` and the command line ask for the same."""
        return PostgresDeclaration

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        """Judge the whole estate around this declaration; raises `PolicyError` with every finding."""
        if not isinstance(attributes, PostgresDeclaration):
            raise TypeError(attributes)
        return cls(load_estate(context.path.parent).postgres()[attributes.dataset])

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Everything about this dataset. Reads no environment variable and reaches no network."""
        del context
        dataset = self.dataset
        jobs = dataset_jobs(dataset)
        stale = restore_when_stale_sensor(
            dataset, jobs.restore_test, lambda vault, now: standing_of(vault, dataset, now)
        )
        own = Parts(
            assets=[snapshot_asset(dataset), wal_chain_spec(dataset), restore_test_assets(dataset)],
            checks=[
                stored_checks(dataset, artefact_key(dataset, "snapshot")),
                *wal_chain_checks(dataset),
                *chain_event_checks(dataset),
            ],
            jobs=[jobs.snapshot, jobs.wal_chain, jobs.restore_test],
            schedules=dataset_schedules(dataset, jobs),
            sensors=[rpo_sensor(dataset), stale, lineage_sensor(dataset, jobs)],
        )
        return (own + roll_up_parts(dataset) + proven_parts(dataset)).definitions()
