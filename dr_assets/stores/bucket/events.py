"""Event notifications: a queue, as SQS speaks, that tells of objects as they are written and removed.

What belongs here: receiving, reading S3's messages, letting go of what was seen to. What stays out: copying (copy.py).

An event only says where to look: the names it tells of are listed and compared as any. Events get lost, come twice or
late, and may be made up by whoever may write to the queue; so none of them moves the recovery point, and the listing
goes on at its cadence.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote_plus

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from dr_assets.estate.errors import SourceError
from dr_assets.estate.model import BucketDataset
from dr_assets.estate.transport import require_tls
from dr_assets.vault.connect import ca_file
from dr_assets.vault.settings import setting

_AT_ONCE: Final = 10  # SQS's own limit
_MOST: Final = 1000
_TAGGING: Final = "ObjectTagging"
_NAME_BYTES: Final = 1024  # S3's own limit


@dataclass(slots=True)
class Told:
    """What a batch of messages says: names to look at, of which `retagged` have other tags than before."""

    names: set[str] = field(default_factory=set)
    retagged: set[str] = field(default_factory=set)
    receipts: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.receipts)


@dataclass(frozen=True, slots=True)
class Queue:
    """One queue; one thread uses it."""

    client: Any
    url: str
    bucket: str

    def receive(self, wait_s: int = 0) -> Told:
        """Messages that are there, up to a thousand; at the first look wait for one. Raises SourceError."""
        told = Told()
        while len(told.receipts) < _MOST:
            answer = self._ask(
                "receive_message", MaxNumberOfMessages=_AT_ONCE, WaitTimeSeconds=0 if told else min(wait_s, 20)
            )
            messages = answer.get("Messages", [])
            for message in messages:
                told.receipts.append(str(message["ReceiptHandle"]))
                _read(str(message["Body"]), self.bucket, told)
            if not messages:
                break
        return told

    def let_go(self, told: Told) -> None:
        """These were seen to: what they told of is in the vault. Raises SourceError."""
        for begin in range(0, len(told.receipts), _AT_ONCE):
            chunk = told.receipts[begin : begin + _AT_ONCE]
            entries = [{"Id": str(number), "ReceiptHandle": one} for number, one in enumerate(chunk)]
            self._ask("delete_message_batch", Entries=entries)

    def _ask(self, operation: str, **arguments: Any) -> Mapping[str, Any]:
        try:
            answer: Mapping[str, Any] = getattr(self.client, operation)(QueueUrl=self.url, **arguments)
        except (ClientError, BotoCoreError) as error:
            raise SourceError(
                "bucket.queue",
                f"the queue of events about {self.bucket} can't be read ({type(error).__name__})",
                "copying goes on by listing; see to the queue's address and the identity's rights",
            ) from None
        return answer


def queue_of(dataset: BucketDataset, env: Mapping[str, str]) -> Queue | None:
    """The declared queue, spoken to with the source's identity; None without one. Its URL tells the endpoint."""
    if dataset.events_queue_env is None:
        return None
    url = setting(env, dataset.events_queue_env, f"the queue of events of '{dataset.name}'")
    require_tls(url, dataset.events_queue_env)
    scheme, _, rest = url.partition("://")
    client = botocore.session.Session().create_client(
        "sqs",
        region_name=dataset.s3_region,
        endpoint_url=f"{scheme}://{rest.partition('/')[0]}",
        verify=ca_file(env),
        aws_access_key_id=setting(env, dataset.access_key_env, "the queue's access key"),
        aws_secret_access_key=setting(env, dataset.secret_key_env, "the queue's secret key"),
        config=Config(connect_timeout=5, read_timeout=60, retries={"mode": "standard", "total_max_attempts": 4}),
    )
    return Queue(client, url, dataset.bucket)


def _read(body: str, bucket: str, told: Told) -> None:
    """Names out of one message, plain or wrapped by SNS; what is no event of this bucket tells nothing."""
    try:
        raw = json.loads(body)
        if isinstance(raw, dict) and isinstance(raw.get("Message"), str):
            raw = json.loads(raw["Message"])
    except ValueError:
        return
    records: Sequence[Any] = raw.get("Records", []) if isinstance(raw, dict) else []
    for record in records if isinstance(records, list) else []:
        try:
            of_bucket, key = record["s3"]["bucket"]["name"], record["s3"]["object"]["key"]
            event = str(record.get("eventName", ""))
        except (KeyError, TypeError, AttributeError):
            continue
        if of_bucket != bucket or not isinstance(key, str):
            continue
        name = unquote_plus(key)
        if not _can_be_a_name(name):  # the store would refuse to list it, again and again
            continue
        told.names.add(name)
        if event.startswith(_TAGGING):
            told.retagged.add(name)


def _can_be_a_name(name: str) -> bool:
    try:
        return "\0" not in name and 0 < len(name.encode("utf-8")) <= _NAME_BYTES
    except UnicodeEncodeError:
        return False
