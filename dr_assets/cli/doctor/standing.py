"""Probes of what stands behind the stored bytes: bucket, wrappings, second region, log, witnesses, verification.

What belongs here: the newest word of each, against what is declared. What stays out: what the stored backups are worth
(backups.py), whether stores answer and lock (vaults.py), who may do what (roles.py).
"""

from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from typing import Final

from dr_assets.cli.doctor.line import Line, Verdict
from dr_assets.cli.doctor.patient import Patient
from dr_assets.estate import cadence
from dr_assets.estate.durations import format_duration
from dr_assets.estate.errors import VaultError
from dr_assets.estate.verification import VERIFY_LEVELS
from dr_assets.vault.log.outside import newest_witnessed, outsiders_of, waiting_since
from dr_assets.vault.log.reader import LogReader
from dr_assets.vault.log.standing import log_standing
from dr_assets.vault.replication.standing import standing
from dr_assets.vault.storage import STORE_AWAY
from dr_assets.vault.verify.bucket import bucket_findings, bucket_settings
from dr_assets.vault.verify.record import latest_verifications, settings_before

LOG_LATE: Final = timedelta(minutes=20)
LAG_BAD: Final = timedelta(hours=1)
LOOK_BACK: Final = timedelta(days=400)
_CLEAR: Final = "http://"


def transit(patient: Patient) -> Iterator[Line]:
    """Each vault is spoken to over TLS; what stays on this host may do without."""
    for name in (patient.dataset.vault, *patient.dataset.replicas):
        endpoint = patient.env.get(patient.estate.vaults[name].endpoint_env, "")
        check = f"transit {name}"
        if endpoint.lower().startswith(_CLEAR):
            hint = (
                "objects are sealed, their names and your requests are not: use https and a private CA, DR_ASSETS_S3_CA"
            )
            yield Line(check, "warn", "in clear, which is allowed on this host alone", hint)
        elif endpoint:
            yield Line(check, "ok", "TLS")


def bucket(patient: Patient, name: str) -> Iterator[Line]:
    """Versioning, Object Lock, default lock, lifecycle rules and policy are as `vault init` leaves them."""
    check, vault = f"bucket {name}", patient.vault(name)
    settings = bucket_settings(vault.store)
    if settings is None:
        return
    found = list(bucket_findings(settings, settings_before(vault)))
    for each in found:
        hint = "take it back, and find out whose keys did that: docs/verify.md, Opened as of a time"
        yield Line(check, "bad" if each.severity == "error" else "warn", each.detail, hint)
    if not found:
        net = f"default lock {settings.default_lock}, no lifecycle rule that removes, no policy of its own"
        yield Line(check, "ok", f"versioned, Object Lock on, {net}")
    if settings.unread:
        hint = "let a reader see them, or look with an administrator's keys now and then"
        yield Line(check, "warn", f"these keys may not see: {', '.join(settings.unread)}", hint)


def wrappings(patient: Patient) -> Iterator[Line]:
    """Each data key of the dataset is wrapped by every provider that is declared for it."""
    keys, name = patient.vault().keys, patient.dataset.name
    declared = {provider.name for provider in keys.providers.of_dataset(name)}
    held: dict[str, set[str]] = {}
    for key, wrapped in keys.wrappings(name):
        held.setdefault(key.system_id, set()).add(wrapped.provider)
    lacking = sorted(f"{key_id} by {one}" for key_id, by in held.items() for one in declared - by)
    if lacking:
        hint = "`dr-assets keys rotate` adds them: without them this provider can't open what is stored"
        yield Line("wrappings", "bad", f"{len(lacking)} lack: {', '.join(lacking[:3])}", hint)
    elif held:
        yield Line("wrappings", "ok", f"{len(held)} data key(s), each wrapped by {', '.join(sorted(declared))}")


def replication(patient: Patient) -> Iterator[Line]:
    """What is proven of each copy, by the newest pass over it."""
    for name in patient.dataset.replicas:
        check, vault = f"replication {name}", patient.vault()
        newest = standing(vault, name)
        hint = "`dr-assets replicate --json` names what lacks; is job `vault_replication` alive? docs/replication.md"
        if newest is None:
            yield Line(check, "warn", "no pass has proven anything of this copy yet", hint)
            continue
        lag, unproven = newest.lag(vault.store.now(), patient.dataset.name), newest.unproven_count
        found = f"proven up to {format_duration(_seconds(lag))} ago, {unproven} object(s) not proven"
        verdict: Verdict = "bad" if lag > LAG_BAD else "warn" if unproven else "ok"
        yield Line(check, verdict, found, "" if verdict == "ok" else hint)


def log(patient: Patient) -> Iterator[Line]:
    """The log continues its earlier checkpoints, and nothing waits for it for long."""
    found = log_standing(patient.vault())
    if found.trouble is not None:
        hint = "keep everything as it is, and compare with an export and the witnesses: docs/witness.md, Red"
        yield Line("log", "bad", found.trouble.partition("\n")[0], hint)
        return
    hint = "run `dr-assets log sequence`; is it, or job `vault_checkpoint`, alive?"
    if found.checkpoint is None:
        yield Line("log", "warn", f"there is no checkpoint yet, {found.unlogged} object(s) wait", hint)
    elif found.oldest_at is not None and found.now - found.oldest_at > LOG_LATE:
        waits = format_duration(_seconds(found.now - found.oldest_at))
        yield Line("log", "bad", f"{found.unlogged} object(s) are not in it, the oldest for {waits}", hint)
    else:
        yield Line("log", "ok", f"{found.checkpoint.size} leaves, {found.compared} earlier checkpoints continued")


def witness(patient: Patient) -> Iterator[Line]:
    """A quorum of the declared witnesses has cosigned what the log says, lately enough."""
    outsiders = outsiders_of(patient.estate, patient.env)
    if not outsiders.witnesses:
        hint = "run `dr-assets witness` on hosts of others and declare `log.witnesses`: docs/witness.md"
        yield Line("witness", "warn", "nobody outside remembers the log's checkpoints", hint)
        return
    try:
        reader = LogReader.open(patient.vault())
    except VaultError as error:
        if error.code in STORE_AWAY:
            raise
        return  # told by `log`
    if reader is None:
        return
    seen = newest_witnessed(outsiders, reader)
    waiting = waiting_since(reader, seen)
    late = waiting is not None and patient.vault().store.now() - waiting > outsiders.cosigned_within
    of = f"{max(outsiders.quorum, 1)} of {len(outsiders.witnesses)} witnesses"
    if late:
        found = f"leaves wait for {of} for longer than {format_duration(outsiders.cosigned_within)}"
        yield Line("witness", "bad", found, "are they alive, and reachable from the sequencer's host? docs/witness.md")
    elif seen is not None:
        yield Line("witness", "ok", f"{seen.size} leaves cosigned by {of}, {seen.at:%Y-%m-%d %H:%M} UTC")


def verification(patient: Patient) -> Iterator[Line]:
    """The newest verification of each level on record: in order, and as recent as declared."""
    vault, policy = patient.vault(), patient.estate.verification
    found = latest_verifications(vault, vault.clock() - LOOK_BACK)
    for level in VERIFY_LEVELS:
        check, newest = f"verified {level}", found.get(level)
        run = f"run `dr-assets vault verify --level {level} --record`; docs/verify.md"
        if newest is None:
            yield Line(check, "warn", "there is none on record", run)
            continue
        said = f"{newest.at:%Y-%m-%d %H:%M} UTC, {newest.objects_total} objects"
        if not newest.ok:
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(newest.errors.items()))
            yield Line(check, "bad", f"{said}: {kinds}", "`dr-assets vault verify` names them; docs/verify.md")
        elif vault.clock() - newest.at > cadence.with_grace(policy.every(level)):
            yield Line(check, "bad", f"{said}: overdue, declared {format_duration(policy.every(level))}", run)
        else:
            yield Line(check, "ok", said)


def buckets(patient: Patient) -> dict[str, partial[Iterator[Line]]]:
    """`bucket` for each vault of the dataset, by the name of the probe."""
    names = (patient.dataset.vault, *patient.dataset.replicas)
    return {f"bucket {name}": partial(bucket, name=name) for name in names}


def _seconds(span: timedelta) -> timedelta:
    return timedelta(seconds=max(0, round(span.total_seconds())))
