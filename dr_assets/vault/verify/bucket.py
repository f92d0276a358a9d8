"""How the bucket as a whole is set up, judged: what is stored is locked by itself, what comes next may not be.

What belongs here: findings about settings. What stays out: asking the store (storage/bucket_settings.py).
"""

from collections.abc import Iterator

from dr_assets.vault.storage import ObjectStore
from dr_assets.vault.storage.bucket_settings import BucketSettings, TellsSettings
from dr_assets.vault.verify.report import Finding

BUCKET = "(bucket)"


def bucket_settings(store: ObjectStore) -> BucketSettings | None:
    """The store's settings; None for a store that has none to change."""
    return store.bucket_settings() if isinstance(store, TellsSettings) else None


def bucket_findings(settings: BucketSettings | None, before: BucketSettings | None = None) -> Iterator[Finding]:
    """What is set otherwise than `vault init` leaves it, or than it was `before`."""
    if settings is None:
        return
    unread = {what.partition(" (")[0] for what in settings.unread}
    if settings.versioning != "Enabled" and "versioning" not in unread:
        now = settings.versioning or "off"
        yield _found("bucket_open", f"versioning is {now}: from now on a put can replace what it names")
    if not settings.object_lock and "object lock" not in unread:
        yield _found("bucket_open", "Object Lock is off: no put is locked any more")
    if not settings.default_lock and "object lock" not in unread:
        yield _found("bucket_changed", "no default lock: a put that names none can be deleted at once")
    if settings.expiring:
        rules = ", ".join(settings.expiring)
        yield _found("bucket_changed", f"lifecycle rules that remove objects or hide them: {rules}")
    if settings.policy_sha256:
        yield _found("bucket_changed", f"a bucket policy is set (SHA-256 {settings.policy_sha256[:16]}…)")
    if before is not None:
        yield from _changed(settings, before)


def _changed(settings: BucketSettings, before: BucketSettings) -> Iterator[Finding]:
    """What a look before this one saw otherwise."""
    for what, now, then in (
        ("the default lock", settings.default_lock, before.default_lock),
        ("lifecycle rules", settings.lifecycle_sha256[:16], before.lifecycle_sha256[:16]),
        ("the bucket policy", settings.policy_sha256[:16], before.policy_sha256[:16]),
        ("replication", settings.replication_sha256[:16], before.replication_sha256[:16]),
    ):
        if now != then:
            yield _found("bucket_changed", f"{what}: {now or 'none'}, was {then or 'none'} at the last verification")


def _found(kind: str, detail: str) -> Finding:
    return Finding(kind, BUCKET, None, detail)
