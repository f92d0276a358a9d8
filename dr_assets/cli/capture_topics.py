"""`dr-assets capture` of a dataset of topics: the resident process that fetches record batches into the vault.

What belongs here: putting it together from a declaration and the environment. What stays out: options (capture.py).
"""

import logging
import os
import threading
from collections.abc import Callable
from contextlib import ExitStack

from prometheus_client import CollectorRegistry

from dr_assets.estate.errors import PolicyError
from dr_assets.estate.model import TopicsDataset
from dr_assets.observability.kafka_metrics import PrometheusKafkaMetrics
from dr_assets.stores.kafka.access import connect
from dr_assets.stores.kafka.capture import KafkaCapture
from dr_assets.stores.kafka.report import KafkaCaptureReport
from dr_assets.vault.vault import Vault

log = logging.getLogger("dr_assets.capture")


def capture_topics(
    vault: Vault, declared: TopicsDataset, registry: CollectorRegistry, *, report: bool, stop: threading.Event
) -> None:
    """Capture until `stop` is set. `report`: tell Dagster. Raises DrError."""
    with ExitStack() as stack:
        listeners: list[Callable[[KafkaCaptureReport], None]] = [lambda said: log.info("%s", said)]
        if report:
            # Dagster takes seconds to import, and only this option needs it.
            from dr_assets.components.resident import topics_reporting_to_dagster  # noqa: PLC0415 - see above

            listeners.append(stack.enter_context(topics_reporting_to_dagster()))
        cluster = stack.enter_context(connect(declared, os.environ))
        log.info("%s: cluster %s", declared.name, cluster.cluster_id)

        def tell(said: KafkaCaptureReport) -> None:
            for listener in listeners:
                listener(said)

        KafkaCapture(
            vault, declared, cluster, registry=schema_registry_of(declared), listener=tell,
            metrics=PrometheusKafkaMetrics(registry),
        ).run(stop)  # fmt: skip


def schema_registry_of(declared: TopicsDataset) -> str | None:
    """The registry's URL, from the variable that the declaration names; None without one."""
    if declared.schema_registry_env is None:
        return None
    url = os.environ.get(declared.schema_registry_env)
    if not url:
        raise PolicyError(
            "cli.no_registry",
            f"{declared.schema_registry_env} is not set, so the schemas of '{declared.name}' can't be captured",
            f"export {declared.schema_registry_env}=https://registry:8081, or declare no `schema_registry_env`",
        )
    return url
