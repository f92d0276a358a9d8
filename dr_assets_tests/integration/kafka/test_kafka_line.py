"""One connection to a broker: answers belong to the requests they are for, whatever else is asked meanwhile."""

import select

import pytest
from kafka.protocol.metadata import MetadataRequest
from kafka.protocol.producer import ProduceRequest

from dr_assets.engines.kafka.server import KafkaServer
from dr_assets.stores.kafka import line as line_module
from dr_assets.stores.kafka.wire import Cluster

WAIT_S = 180.0


def test_asking_for_a_version_loses_no_answer(kafka: KafkaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """While an answer waits to be taken, however long ago the line was used, its connection stays and it is taken."""
    monkeypatch.setattr(line_module, "_SILENT_S", 0.0)
    with Cluster.connect(kafka.bootstrap) as cluster:
        line = cluster.own_line(next(iter(cluster.metadata(None).brokers)))
        try:
            line.post(MetadataRequest(topics=[]))
            assert line._socket is not None
            assert select.select([line._socket], [], [], WAIT_S)[0]
            assert line.version_of(ProduceRequest) >= 3
            assert line.pending == 1
            assert line.take().brokers
        finally:
            line.close()
