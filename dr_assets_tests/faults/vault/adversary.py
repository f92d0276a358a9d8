"""An attacker with keys to the store: everything that S3 lets him do short of breaking a lock, seeded.

What belongs here: the attacks, and what of each a verification has to name. What stays out: running them and holding
the vault to what it was (adversary_trials.py).
"""

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from botocore.exceptions import ClientError

from dr_assets.vault.format import canonical
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.signing import Signer
from dr_assets.vault.throwaway import throwaway_vault

BUCKET_WORD: Final = "(bucket)"
FAR: Final = datetime(2090, 1, 1, tzinfo=UTC)
DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Must:
    """What has to be named: a name of the store, or the bucket with a word that the finding's detail holds."""

    key: str
    word: str = ""


@dataclass
class Thief:
    """Somebody with keys. `sealed` are the victims by name, `undo` takes back what concerns the whole bucket."""

    client: Any
    bucket: str
    estate: str
    sealed: dict[str, bytes]
    chance: random.Random
    undo: list[Callable[[Any], object]] = field(default_factory=list)
    did: int = 0
    refused: int = 0

    def tries(self, operation: str, **arguments: Any) -> bool:
        """Whether the store did as it was told."""
        try:
            getattr(self.client, operation)(Bucket=self.bucket, **arguments)
        except ClientError:
            self.refused += 1
            return False
        self.did += 1
        return True

    def puts(self, key: str, data: bytes) -> bool:
        """Any bytes under any name, by whatever way is open: plainly, or locked as a writer has to."""
        lock = {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": datetime.now(UTC) + DAY}
        return self.tries("put_object", Key=key, Body=data) or self.tries("put_object", Key=key, Body=data, **lock)

    def some(self, count: int = 2) -> list[str]:
        """Victims."""
        return self.chance.sample(sorted(self.sealed), count)

    def of_stream(self, word: str) -> str:
        """A victim whose name holds a word."""
        return self.chance.choice([name for name in sorted(self.sealed) if word in name])

    def key(self, name: str) -> ObjectKey:
        """Its parts."""
        key = ObjectKey.parse(name)
        assert key is not None
        return key


Attack = Callable[[Thief], Iterator[Must]]


def named(key: ObjectKey, data: bytes, **parts: Any) -> str:
    """Our form of a name with the digest that fits these bytes."""
    fields = {part: getattr(key, part) for part in key.__dataclass_fields__} | parts
    return str(ObjectKey(**(fields | {"digest": hashlib.sha256(data).hexdigest()[:32]})))


def delete_markers(thief: Thief) -> Iterator[Must]:
    """Plain deletes: everything looks gone to whoever does not ask for versions."""
    for name in thief.some(3):
        if thief.tries("delete_object", Key=name):
            yield Must(name)


def newer_versions(thief: Thief) -> Iterator[Must]:
    """Over ours: noise, a bit of it changed, another one of ours, nothing, and itself behind a delete marker."""
    one, two, three, four, five = thief.some(5)
    changed = bytearray(thief.sealed[two])
    changed[thief.chance.randrange(len(changed))] ^= 1 << thief.chance.randrange(8)
    puts = {one: thief.chance.randbytes(99), two: bytes(changed), three: thief.sealed[one], four: b""}
    for name, data in puts.items():
        if thief.puts(name, data):
            yield Must(name)
    if thief.tries("delete_object", Key=five) and thief.puts(five, thief.sealed[five]):
        yield Must(five)


def junk_keys(thief: Thief) -> Iterator[Must]:
    """Names that are not ours: beside, within and behind ours, in the log's folder, and beside the estate's."""
    estate, name, word = thief.estate, thief.some(1)[0], thief.chance.randbytes(4).hex()
    folder = name.rpartition("/")[0]
    for junk in (
        f"{estate}/README-{word}", f"{folder}/{word}", f"{name}{word}", f"{name}/{word}", f"{estate}/{word}/wal/x",
        f"{estate}/log/{word}", f"{folder}/{'F' * 16}-{word}", f"{estate}/ledger/{word}/é/\x7f", f"readme-{word}",
    ):  # fmt: skip
        if thief.puts(junk, thief.chance.randbytes(50)):
            yield Must(junk)


def look_alikes(thief: Thief) -> Iterator[Must]:
    """Names of our form over bytes that fit their digest: no object, a stranger's object, his key, log files."""
    chance = thief.chance
    for word in ("/wal/", "/base/", "/base-", "/facts-capture/", "/keys/"):
        key, junk = thief.key(thief.of_stream(word)), chance.randbytes(200)
        at = key.first + (0 if word == "/keys/" else 1 + chance.randrange(1000))
        name = named(key, junk, first=at, last=max(at, key.last))
        if thief.puts(name, junk):
            yield Must(name)
    for stream in ("full", "full-list", "expiry-list", "facts-approval", "facts-expiry"):
        forged = strangers_object(thief, stream, chance.randrange(1 << 40))
        if thief.puts(*forged):
            yield Must(forged[0])
    for tail in (f"checkpoint/{chance.randrange(10**12):020d}", f"batch/{chance.randrange(10**9):020d}-0000"):
        if thief.puts(f"{thief.estate}/log/{tail}", b"dr-assets/x\n1\nAAAA\n"):
            yield Must(f"{thief.estate}/log/{tail}")


def strangers_object(thief: Thief, stream: str, first: int) -> tuple[str, bytes]:
    """Well made in every way, and signed by nobody whom we trust."""
    forger = throwaway_vault(estate=thief.estate, signer=Signer.from_seed(thief.chance.randbytes(32)))
    now = datetime.now(UTC)
    fact = stream.startswith("facts-")
    sealed = forger.prepare(
        dataset="ledger", stream=stream, kind="fact" if fact else ("wal" if stream == "full" else "manifest"),
        system_id="0" if fact else "7512345678901234567", timeline=0 if fact else 1, first=first, last=first + 1,
        begin_at=now, end_at=now, plaintext=canonical.encode({"event": "done", "list": "x", "parts": []}),
    ).seal()  # fmt: skip
    return str(sealed.key), sealed.data


def suspended_versioning(thief: Thief) -> Iterator[Must]:
    """So that a put would replace what it names; then such a put, and a delete."""
    thief.undo.append(
        lambda admin: admin.put_bucket_versioning(Bucket=thief.bucket, VersioningConfiguration={"Status": "Enabled"})
    )
    if thief.tries("put_bucket_versioning", VersioningConfiguration={"Status": "Suspended"}):
        yield Must(BUCKET_WORD, "versioning")
    one, two = thief.some(2)
    if thief.puts(one, b"null version"):
        yield Must(one)
    if thief.tries("delete_object", Key=two):
        yield Must(two)


def rolled_clock(thief: Thief) -> Iterator[Must]:
    """Facts and checkpoints of the far future, to be the latest for ever: a stranger's, and ours under a later date."""
    at = int(FAR.timestamp() * 1e6) + thief.chance.randrange(10**6)
    for stream in ("facts-snapshot", "facts-capture", "facts-inventory"):
        forged = strangers_object(thief, stream, at)
        if thief.puts(*forged):
            yield Must(forged[0])
    ours = thief.of_stream("/facts-capture/")
    later = named(thief.key(ours), thief.sealed[ours], first=at, last=at + 1)
    if thief.puts(later, thief.sealed[ours]):
        yield Must(later)
    checkpoint = f"{thief.estate}/log/checkpoint/{10**19 + thief.chance.randrange(10**6):020d}"
    if thief.puts(checkpoint, b"dr-assets/casino\n9\nAAAA\n\n\xe2\x80\x94 x AAAA\n"):
        yield Must(checkpoint)


def copied_objects(thief: Thief) -> Iterator[Must]:
    """Ours, copied within the store to other positions, timelines and datasets, and over one another."""
    for name, other in zip(thief.some(3), thief.some(3), strict=True):
        key, data = thief.key(name), thief.sealed[name]
        shift = thief.chance.randrange(1, 1 << 30)
        moved = {"timeline": key.timeline + 1 + shift % 7} if shift % 2 else {"dataset": f"other{shift % 97}"}
        if key.stream != "keys" and shift % 3:
            moved = {"first": key.first + shift, "last": key.last + shift}
        for target in {named(key, data, **moved), other} - {name}:
            if thief.tries("copy_object", Key=target, CopySource={"Bucket": thief.bucket, "Key": name}):
                yield Must(target)


def replayed_facts(thief: Thief) -> Iterator[Must]:
    """Yesterday's word as today's: ours under the time of now, and over the newest one's name."""
    now = int(datetime.now(UTC).timestamp() * 1e6)
    facts = sorted(name for name in thief.sealed if "/facts-" in name)
    for old in thief.chance.sample(facts, 2):
        name = named(thief.key(old), thief.sealed[old], first=now, last=now + 1)
        if thief.puts(name, thief.sealed[old]):
            yield Must(name)
        newest = max(other for other in facts if other.split("/")[2] == old.split("/")[2])
        victim = newest if newest != old else thief.chance.choice([other for other in facts if other != old])
        if thief.puts(victim, thief.sealed[old]):
            yield Must(victim)


def bucket_settings(thief: Thief) -> Iterator[Must]:
    """A policy that lets everybody in, rules that empty the bucket, no default lock."""
    arn = f"arn:aws:s3:::{thief.bucket}"
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": [arn, f"{arn}/*"], "Sid": "a"}
        ],
    }
    rules = [
        {"ID": f"tidy{thief.chance.randrange(99)}", "Status": "Enabled", "Filter": {"Prefix": ""},
         "Expiration": {"Days": 1}, "NoncurrentVersionExpiration": {"NoncurrentDays": 1}}
    ]  # fmt: skip
    lock: dict[str, Any] = {"ObjectLockEnabled": "Enabled"}
    net = lock | {"Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 14}}}
    changes: list[tuple[str, str, dict[str, Any], Callable[[Any], object]]] = [
        ("policy", "put_bucket_policy", {"Policy": json.dumps(policy)},
         lambda admin: admin.delete_bucket_policy(Bucket=thief.bucket)),
        ("lifecycle", "put_bucket_lifecycle_configuration", {"LifecycleConfiguration": {"Rules": rules}},
         lambda admin: admin.delete_bucket_lifecycle(Bucket=thief.bucket)),
        ("default lock", "put_object_lock_configuration", {"ObjectLockConfiguration": lock},
         lambda admin: admin.put_object_lock_configuration(Bucket=thief.bucket, ObjectLockConfiguration=net)),
    ]  # fmt: skip
    for word, operation, arguments, back in thief.chance.sample(changes, 2):
        if thief.tries(operation, **arguments):
            thief.undo.append(back)
            yield Must(BUCKET_WORD, word)


def removals(thief: Thief) -> Iterator[Must]:
    """What a lock is for: versions deleted, one by one and by the hundred, with a bypass; locks shortened, ended."""
    past = datetime.now(UTC) + timedelta(seconds=30)
    for name in thief.some(3):
        rows = thief.client.list_object_versions(Bucket=thief.bucket, Prefix=name).get("Versions", [])
        for row in rows:
            one = {"Key": name, "VersionId": row["VersionId"]}
            for bypass in ({}, {"BypassGovernanceRetention": True}):
                assert not thief.tries("delete_object", **one, **bypass), f"{name} was deleted"
                thief.tries("delete_objects", Delete={"Objects": [one]}, **bypass)
                for mode in ("COMPLIANCE", "GOVERNANCE"):
                    shorter = {"Mode": mode, "RetainUntilDate": past}
                    assert not thief.tries("put_object_retention", **one, Retention=shorter, **bypass), (
                        f"{name} shortened"
                    )
    assert not thief.tries("delete_bucket"), "the bucket is gone"
    yield from ()


ATTACKS: Final[dict[str, Attack]] = {
    attack.__name__: attack
    for attack in (
        delete_markers, newer_versions, junk_keys, look_alikes, suspended_versioning, rolled_clock, copied_objects,
        replayed_facts, bucket_settings, removals,
    )
}  # fmt: skip
WHOLE_BUCKET: Final = frozenset({"suspended_versioning", "bucket_settings"})


def kinds_of(attacks: Sequence[str] | None = None) -> list[str]:
    """All, or those asked for."""
    return [name for name in ATTACKS if attacks is None or name in attacks]
