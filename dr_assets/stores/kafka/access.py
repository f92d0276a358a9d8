"""How a declared cluster is reached: addresses and secrets out of the environment, read when they are needed.

What belongs here: from a declaration to a connected cluster. What stays out: the connection itself (wire.py).
"""

from collections.abc import Mapping

from dr_assets.estate.errors import PolicyError
from dr_assets.estate.model import KafkaSecurity, TopicsDataset
from dr_assets.estate.transport import require_kafka_tls
from dr_assets.stores.kafka.line import PLAINTEXT, Security
from dr_assets.stores.kafka.wire import Cluster


def bootstrap_of(dataset: TopicsDataset, env: Mapping[str, str]) -> str:
    """The brokers' addresses. Raises PolicyError `cli.no_env`, and where records would cross a network in clear."""
    bootstrap = _value(env, dataset.bootstrap_env)
    require_kafka_tls(bootstrap, is_encrypted=dataset.security.is_encrypted, what=dataset.bootstrap_env)
    return bootstrap


def security_of(security: KafkaSecurity, env: Mapping[str, str]) -> Security:
    """What is shown to enter. Raises PolicyError `cli.no_env`."""
    return Security(
        security.protocol,
        _optional(env, security.ca_file_env),
        security.mechanism,
        _optional(env, security.username_env),
        _optional(env, security.password_env),
    )


def connect(dataset: TopicsDataset, env: Mapping[str, str], *, patience_s: float = 30.0) -> Cluster:
    """The dataset's cluster. Raises PolicyError, and SourceError as `Cluster.connect` does."""
    return Cluster.connect(bootstrap_of(dataset, env), security_of(dataset.security, env), patience_s=patience_s)


def connect_target(
    dataset: TopicsDataset, into: str, env: Mapping[str, str], *, plaintext: bool, patience_s: float
) -> Cluster:
    """A cluster at `into` to restore to: spoken to as the dataset's own is, or `plaintext` because a person says so.

    Raises as `connect`: what was locked away sealed is not to cross a network in clear because its source was local.
    """
    if plaintext:
        return Cluster.connect(into, PLAINTEXT, patience_s=patience_s)
    require_kafka_tls(into, is_encrypted=dataset.security.is_encrypted, what="the target")
    return Cluster.connect(into, security_of(dataset.security, env), patience_s=patience_s)


def _optional(env: Mapping[str, str], name: str | None) -> str | None:
    return None if name is None else _value(env, name)


def _value(env: Mapping[str, str], name: str) -> str:
    value = env.get(name, "")
    if not value:
        raise PolicyError("cli.no_env", f"the environment variable {name} is not set", f"set {name}")
    return value
