"""Events: a queue tells where to look sooner, and is believed in nothing else."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import boto3
import pytest
from moto import mock_aws

from dr_assets.components.point_judgements import judge_complete
from dr_assets.estate.model import SubjectRule
from dr_assets.stores.bucket.events import Queue, queue_of
from dr_assets.stores.bucket.follow import copy_told
from dr_assets.stores.bucket.position import recovery_point
from dr_assets.vault.facts import Fact
from dr_assets_tests.integration.bucket.bucket_rig import NAME, World, dataset_of

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("bucket")]


@pytest.fixture
def queue() -> Iterator[tuple[Any, str]]:
    """An SQS queue of moto's, and its URL."""
    with mock_aws():
        client = boto3.client("sqs", region_name="us-east-1")
        yield client, client.create_queue(QueueName="events")["QueueUrl"]


def event(bucket: str, key: str, name: str = "ObjectCreated:Put") -> str:
    """As S3 sends it: the key as in a form."""
    return json.dumps({"Records": [{"eventName": name, "s3": {"bucket": {"name": bucket}, "object": {"key": key}}}]})


def _with(fact: Fact, **changes: Any) -> Fact:
    """The fact with another body."""
    return replace(fact, body={**fact.body, **changes})


def test_events_are_copied_at_once_and_a_lost_one_is_found_by_the_listing(
    world: Callable[..., World], queue: tuple[Any, str]
) -> None:
    """What they tell of is stored, removals and new tags too; the recovery point waits for the listing."""
    one: World = world()
    one.put("kyc/anna/one.pdf", b"one")
    one.put("kyc/anna/goes.pdf", b"goes")
    point = one.copy().listing_begin_at
    client, url = queue
    dataset = dataset_of(one.bucket, SubjectRule("none"), events_queue_env="QUEUE")
    listener = queue_of(dataset, {"QUEUE": url, "KYC_ACCESS_KEY": "a", "KYC_SECRET_KEY": "s"})
    assert isinstance(listener, Queue)

    one.put("kyc/anna/ünew + one.pdf", b"told")
    one.put("kyc/anna/lost.pdf", b"its event is lost")
    one.client.delete_object(Bucket=one.bucket, Key="kyc/anna/goes.pdf")
    one.client.put_object_tagging(
        Bucket=one.bucket, Key="kyc/anna/one.pdf", Tagging={"TagSet": [{"Key": "checked", "Value": "yes"}]}
    )
    for body in (
        event(one.bucket, "kyc/anna/%C3%BCnew+%2B+one.pdf"),
        json.dumps({"Message": event(one.bucket, "kyc/anna/goes.pdf", "ObjectRemoved:DeleteMarkerCreated")}),
        event(one.bucket, "kyc/anna/one.pdf", "ObjectTagging:Put"),
        event("another-bucket", "kyc/anna/lost.pdf"),
        event(one.bucket, "kyc/anna/never-was.pdf"),
        json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent"}),
        "no event at all",
    ):
        client.send_message(QueueUrl=url, MessageBody=body)
    said: list[str] = []
    result = copy_told(one.site(), one.place(), listener, say=said.append, wait_s=0)
    assert result is not None
    assert (result.counts.copied, result.counts.markers, result.is_whole_listing) == (2, 1, False)
    told = recovery_point(one.vault(), NAME)
    assert told is not None
    assert told.at == point
    later = told.fact.at + timedelta(seconds=1)
    assert judge_complete(dataset, told.fact, later).passed
    # The listing failed, or was never made since: what events told of is no comparison.
    assert not judge_complete(dataset, _with(told.fact, compared_complete=False), later).passed
    assert not judge_complete(dataset, _with(told.fact, compared_at="2020-01-01T00:00:00.000000Z"), later).passed
    assert "Messages" not in client.receive_message(QueueUrl=url)  # all were let go
    assert copy_told(one.site(), one.place(), listener, say=said.append, wait_s=0) is None

    back = one.current(one.restore()[0])
    assert set(back) == {"kyc/anna/one.pdf", "kyc/anna/ünew + one.pdf"}
    assert back["kyc/anna/one.pdf"][0][-1] == [("checked", "yes")]
    assert one.copy().counts.copied == 1  # the one whose event was lost
    assert one.current(one.restore()[0]) == one.current()
