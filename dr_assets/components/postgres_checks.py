"""The checks that a run makes on the WAL chain: `contiguous` and `rpo`.

What belongs here: reading the vault for each and handing back its verdict. What stays out: the verdicts themselves
(judgements.py). Inside a run a blocking check stops what comes after it; outside a run it stops nothing, and so a
restore refuses damage and holes by itself.
"""

import dagster as dg

from dr_assets.components.evaluations import check_result
from dr_assets.components.failures import shown_as_failure
from dr_assets.components.judgements import Judgement, judge_contiguous, judge_rpo
from dr_assets.components.labels import artefact_key
from dr_assets.components.rpo_sensor import contiguous_key, rpo_key
from dr_assets.components.vault_resource import resource_key
from dr_assets.estate.model import PostgresDataset
from dr_assets.stores.postgres.capture_facts import GAP, latest_anchor
from dr_assets.stores.postgres.course import find_course
from dr_assets.stores.postgres.followed import left_on_the_way
from dr_assets.stores.postgres.history import Leg
from dr_assets.stores.postgres.lsn import parse_lsn
from dr_assets.stores.postgres.objective import stream_of
from dr_assets.stores.postgres.position import stored_recovery_point
from dr_assets.vault.facts import latest_fact
from dr_assets.vault.vault import Vault


def wal_chain_checks(dataset: PostgresDataset) -> list[dg.AssetChecksDefinition]:
    """`rpo`, which the sensor judges every 5 s and anyone may run by hand, and `contiguous`."""
    key = artefact_key(dataset, "wal_chain")
    resources = {resource_key(dataset.vault)}

    @dg.asset_check(
        asset=key,
        name="rpo",
        description="The newest commit that a base backup leads to is younger than the RPO, by the source's clock.",
        required_resource_keys=resources,
    )
    def rpo(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        with shown_as_failure():
            vault = getattr(context.resources, resource_key(dataset.vault)).open_vault()
            point, base = stored_recovery_point(vault, dataset), latest_fact(vault, dataset.name, "snapshot")
            left = {} if point is None else left_on_the_way(vault, dataset.name, stream_of(point), base)
        return check_result(rpo_key(dataset), judge_rpo(dataset, point, base, left, vault.clock()))

    @dg.asset_check(
        asset=key,
        name="contiguous",
        # In a run that takes a base backup, judge the chain from that one on.
        additional_deps=[artefact_key(dataset, "snapshot")],
        description="From the newest base backup on, the stored WAL has no hole.",
        blocking=True,
        required_resource_keys=resources,
    )
    def contiguous(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        with shown_as_failure():
            vault = getattr(context.resources, resource_key(dataset.vault)).open_vault()
            verdict = judge_chain(vault, dataset)
        return check_result(contiguous_key(dataset), verdict)

    return [rpo, contiguous]


def judge_chain(vault: Vault, dataset: PostgresDataset) -> Judgement:
    """Read what `contiguous` is judged from: newest base backup, the WAL from there on, newest gap and anchor.

    After a failover the WAL leads over the switch, as far as the sealed history shows the way.
    """
    base, gap = latest_fact(vault, dataset.name, "snapshot"), latest_fact(vault, dataset.name, GAP)
    if base is None:
        return judge_contiguous(None, None, gap, None, {})
    anchor = latest_anchor(vault, dataset.name)
    system_id, timeline = str(base.body["system_id"]), int(str(base.body["timeline"]))
    left = {} if anchor is None else left_on_the_way(vault, dataset.name, stream_of(anchor), base)
    legs = [Leg(number, end) for number, end in left.items()]
    legs.append(Leg(anchor.timeline if anchor is not None and left else timeline, None))
    begin = parse_lsn(str(base.body["start_lsn"]))
    return judge_contiguous(base, find_course(vault, dataset.name, system_id, legs, begin).chain, gap, anchor, left)
