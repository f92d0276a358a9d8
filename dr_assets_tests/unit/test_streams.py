"""Declared keys, partitioners and the CRM's file, without a broker."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kafka.partitioner.default import murmur2 as theirs

from dr_assets.estate.errors import PolicyError, SourceError
from dr_assets.reconciliation.externals import external_schema
from dr_assets.reconciliation.streams.contacts import CONTACTS, contact_batches
from dr_assets.reconciliation.streams.groups import GROUP_OFFSETS
from dr_assets.reconciliation.streams.records import PARTITIONS, RECORDS
from dr_assets.reconciliation.streams.rules import StreamRules
from dr_assets.stores.kafka.batches import Record
from dr_assets.stores.kafka.partitioner import by_crc32, by_murmur2, murmur2


def test_what_is_gathered_is_what_the_checks_are_given() -> None:
    """Names and types of the relations are those that a reconciliation takes."""
    for relation, schema in (("records", RECORDS), ("partitions", PARTITIONS), ("group_offsets", GROUP_OFFSETS)):
        wanted = external_schema(relation)
        assert {(one.name, one.type) for one in schema} == {(one.name, one.type) for one in wanted}
    assert CONTACTS.names == external_schema("contacts").names


def test_keys_go_where_the_clients_put_them() -> None:
    """Kafka's own hash for any bytes, and librdkafka's; vectors of Kafka's own test of its partitioner."""
    for size in range(40):
        data = os.urandom(size)
        assert murmur2(data) == theirs(data) & 0xFFFFFFFF
    signed = [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536)]
    assert [murmur2(key) for key, _ in signed] == [hashed & 0xFFFFFFFF for _, hashed in signed]
    assert by_murmur2(b"player-7", 4) == (theirs(b"player-7") & 0x7FFFFFFF) % 4
    assert by_crc32(b"123456789", 1000) == 0xCBF43926 % 1000


def test_a_key_is_in_one_declared_place() -> None:
    """Header, JSON path or the record's own key; none of the others is looked at, and two are refused."""
    record = Record(0, 0, b"k", b'{"id": {"n": 5}, "l": [1]}', ((b"idempotency-key", None), (b"idempotency-key", b"h")))
    assert StreamRules().key_of(record) == "h"
    assert StreamRules("x").key_of(record) is None
    assert StreamRules(None, "id.n").key_of(record) == "5"
    assert [StreamRules(None, path).key_of(record) for path in ("id", "l", "id.n.m")] == [None, None, None]
    assert StreamRules(None, is_key=True).key_of(record) == "k"
    assert StreamRules(None, "a").key_of(Record(0, 0, b"k", None)) is None
    with pytest.raises(PolicyError, match=r"streams\.key_rule"):
        StreamRules("h", "a.b")


def test_dead_letters_are_known_by_their_topics_name() -> None:
    """The usual endings, or those that are declared."""
    assert StreamRules().is_dead_letter("bets.dlq")
    assert not StreamRules().is_dead_letter("bets")
    assert StreamRules(dead_letters=("failed_*",)).is_dead_letter("failed_bets")


def test_contacts_come_out_of_a_csv_or_a_parquet_file(tmp_path: Path) -> None:
    """Consents and moments as they are; names and addresses beside them are never read."""
    at = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    us = 1767323045678901
    csv = tmp_path / "contacts.csv"
    csv.write_text(f"email,player_id,sms_consent,email_consent,synced_at\na@b,007,no,yes,{at.isoformat()}\n")
    parquet = tmp_path / "contacts.parquet"
    columns = {"player_id": [7], "email_consent": [True], "sms_consent": [False], "synced_us": [us], "email": ["a@b"]}
    pq.write_table(pa.table(columns), parquet)
    assert pa.Table.from_batches(contact_batches(csv), CONTACTS).to_pylist() == [
        {"player_id": "007", "email_consent": True, "sms_consent": False, "synced_us": us}
    ]
    assert pa.Table.from_batches(contact_batches(parquet), CONTACTS).to_pylist() == [
        {"player_id": "7", "email_consent": True, "sms_consent": False, "synced_us": us}
    ]


@pytest.mark.parametrize(
    "text",
    [
        "player_id,email_consent,synced_us\n1,true,1\n",
        "player_id,email_consent,sms_consent\n1,true,true\n",
        "player_id,email_consent,sms_consent,synced_us\n1,perhaps,true,1\n",
        "player_id,email_consent,sms_consent,synced_us\n1,true,,1\n",
        "player_id,email_consent,sms_consent,synced_at\n1,true,true,yesterday\n",
    ],
    ids=["no column", "no moment", "no truth", "no value", "no time"],
)
def test_a_file_that_leaves_a_consent_open_is_refused(tmp_path: Path, text: str) -> None:
    """Nothing is guessed about what somebody agreed to."""
    path = tmp_path / "contacts.csv"
    path.write_text(text)
    with pytest.raises(SourceError, match=r"crm\.file"):
        list(contact_batches(path))
