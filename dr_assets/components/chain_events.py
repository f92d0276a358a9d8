"""The checks on what happens around the WAL chain: `durability`, `timeline`, `diverged`, `backpressure`.

What belongs here: making them part of the graph, and judging them on demand. What stays out: who judges in between: the
sensors `rpo` and `lineage`, and for `backpressure` the capture itself, which alone sees its spool.
"""

import time
from collections.abc import Iterator

import dagster as dg

from dr_assets.components.evaluations import check_result
from dr_assets.components.failover_judgements import judge_room
from dr_assets.components.failures import shown_as_failure
from dr_assets.components.labels import artefact_key
from dr_assets.components.lineage_sensor import diverged_key, judge_lineage, timeline_key
from dr_assets.components.reporting import backpressure_key
from dr_assets.components.rpo_sensor import durability_key, judge_from_vault
from dr_assets.components.vault_resource import read_env, resource_key
from dr_assets.estate.model import PostgresDataset
from dr_assets.stores.postgres.session import connect, source_errors
from dr_assets.stores.postgres.slot import slot_status
from dr_assets.stores.postgres.slot_room import RoomWatch


def chain_event_checks(dataset: PostgresDataset) -> list[dg.AssetChecksDefinition]:
    """All of them; `durability` for a dataset that is declared zero loss only."""
    durability = [] if dataset.zero_loss is None else [_durability(dataset)]
    return [*durability, _lineage(dataset), _backpressure(dataset)]


def _durability(dataset: PostgresDataset) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=artefact_key(dataset, "wal_chain"),
        name=durability_key(dataset).name,
        description="Commits wait until the vault holds them; red from the moment on that they were let go.",
        required_resource_keys={resource_key(dataset.vault)},
    )
    def durability(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        judged = judge_from_vault(getattr(context.resources, resource_key(dataset.vault)), dataset)
        return check_result(durability_key(dataset), judged[durability_key(dataset)])

    return durability


def _lineage(dataset: PostgresDataset) -> dg.AssetChecksDefinition:
    key = artefact_key(dataset, "wal_chain")

    @dg.multi_asset_check(
        name=f"{dataset.name}_lineage_checks",
        specs=[
            dg.AssetCheckSpec(
                timeline_key(dataset).name,
                asset=key,
                description="The newest base backup is of the system and timeline that is captured now.",
            ),
            dg.AssetCheckSpec(
                diverged_key(dataset).name,
                asset=key,
                description="No commit that a failover left behind waits for a person to settle it.",
            ),
        ],
        required_resource_keys={resource_key(dataset.vault)},
    )
    def lineage_checks(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        judged = judge_lineage(getattr(context.resources, resource_key(dataset.vault)), dataset)
        yield from (check_result(each, verdict) for each, verdict in judged.items())

    return lineage_checks


def _backpressure(dataset: PostgresDataset) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=artefact_key(dataset, "wal_chain"),
        name=backpressure_key(dataset.name).name,
        description="The source's room for the slot, and the capture's spool, are far from their ends.",
    )
    def backpressure() -> dg.AssetCheckResult:
        with shown_as_failure():
            dsn = read_env(dataset.dsn_env)
            with source_errors(dsn), connect(dsn, application_name="dr-assets check") as connection:
                slot = slot_status(connection, dataset.slot)
        room = None if slot is None else RoomWatch(dataset.wal_volume_bytes).look(slot, time.monotonic())
        return check_result(backpressure_key(dataset.name), judge_room(slot, room))

    return backpressure
