"""Asking everybody outside who is declared to vouch for a log's newest checkpoint, and saying what is amiss.

What belongs here: who is asked when, all at once and within a time; which findings that makes. What stays out: each
outsider (witness_client.py, timestamp.py, anchor.py). It comes after a checkpoint was published: nobody waits for it.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dr_assets.estate.errors import PolicyError
from dr_assets.estate.model import Estate
from dr_assets.estate.transport import require_tls
from dr_assets.vault.log.belief import AnchorBelief, Belief
from dr_assets.vault.log.checkpoint import Signed, origin_of
from dr_assets.vault.log.cosignature import CosignatureVerifier, cosigned_at
from dr_assets.vault.log.outsider import PATIENCE_S, Heard
from dr_assets.vault.log.reader import LogReader, read_checkpoint
from dr_assets.vault.log.shelf import TIMESTAMP, ProofShelf, VaultShelf
from dr_assets.vault.log.witness_client import WitnessPlace, ask_witness, cosignature_held
from dr_assets.vault.signing import Trust

if TYPE_CHECKING:
    from dr_assets.vault.log.anchor import AnchorPlace
    from dr_assets.vault.log.timestamp import StampPlace

PATIENCE: Final = timedelta(seconds=15)
# A witness may have to be asked twice, and the store in between.
_ASKS_FIT: Final = 3
# How many checkpoints back a quorum or a time stamp is looked for: an outage longer than that is red anyway.
LOOK_BACK: Final = 64


@dataclass(frozen=True, slots=True)
class Outsiders:
    """Those whom the estate declares, with what the environment says of them."""

    witnesses: tuple[WitnessPlace, ...] = ()
    quorum: int = 0
    cosigned_within: timedelta = timedelta(hours=1)
    stamps: "StampPlace | None" = None
    stamp_every: timedelta = timedelta(hours=1)
    anchor: "AnchorPlace | None" = None


@dataclass(frozen=True, slots=True)
class Witnessed:
    """The newest checkpoint that a quorum cosigned: its size, and when the quorum was complete."""

    size: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Amiss:
    """Something that a person has to look at. `red`: the log itself is in doubt, or its quorum is late."""

    code: str
    red: bool
    detail: str


def outsiders_of(estate: Estate, env: Mapping[str, str]) -> Outsiders:
    """The declared ones. Raises PolicyError for unset variables, plain HTTP, bad keys, a missing extra."""
    declared = estate.log
    witnesses = tuple(
        WitnessPlace(witness.name, _address(env, witness.url_env), CosignatureVerifier.parse(witness.key))
        for witness in declared.witnesses
    )
    return Outsiders(
        witnesses,
        declared.quorum,
        declared.cosigned_within,
        _stamps(estate, env),
        declared.timestamp.every if declared.timestamp else timedelta(),
        _anchor(estate, env),
    )


def _stamps(estate: Estate, env: Mapping[str, str]) -> "StampPlace | None":
    declared = estate.log.timestamp
    if declared is None:
        return None
    try:
        from dr_assets.vault.log.timestamp import StampPlace, load_roots  # noqa: PLC0415 - wants an extra
    except ImportError:
        raise _lacks_extra("timestamp") from None
    # A token is signed and a request tells a digest only, so plain HTTP will do, and is all that many authorities have.
    return StampPlace(_address(env, declared.url_env, tls=False), load_roots(Path(_setting(env, declared.roots_env))))


def _anchor(estate: Estate, env: Mapping[str, str]) -> "AnchorPlace | None":
    declared = estate.log.anchor
    if declared is None:
        return None
    try:
        from dr_assets.vault.log.anchor import AnchorPlace  # noqa: PLC0415 - wants an extra
    except ImportError:
        raise _lacks_extra("anchor") from None
    return AnchorPlace(
        _address(env, declared.url_env),
        declared.chain_id,
        _setting(env, declared.key_env),
        declared.confirmations,
        declared.every,
    )


def belief_of(estate: Estate, vault_name: str, trust: Trust, outsiders: Outsiders) -> Belief:
    """What somebody who checks the estate's log should believe."""
    anchor = outsiders.anchor
    return Belief(
        origin_of(estate.name, vault_name),
        trust,
        tuple(place.verifier for place in outsiders.witnesses),
        outsiders.quorum,
        tuple(outsiders.stamps.roots) if outsiders.stamps else (),
        AnchorBelief(anchor.chain_id, anchor.address) if anchor else None,
    )


def collect(outsiders: Outsiders, reader: LogReader, now: datetime, *, patience: timedelta = PATIENCE) -> list[Heard]:
    """Ask everybody about the reader's checkpoint, side by side; whoever takes longer than `patience` is `away`.

    What comes later than that is kept all the same. Never raises for an outsider; raises what the store raises.
    """
    shelf, signed = VaultShelf(reader.files), reader.signed
    answer_s = max(PATIENCE_S, patience.total_seconds() / _ASKS_FIT)
    asks: dict[str, Callable[[], Heard]] = {
        f"witness {place.name}": partial(ask_witness, place, signed, _proof_of(reader), shelf, patience_s=answer_s)
        for place in outsiders.witnesses
    }
    if outsiders.stamps and _stamp_due(outsiders, reader, shelf, now):
        asks["timestamp"] = _stamp_ask(outsiders.stamps, signed, shelf)
    if outsiders.anchor:
        asks["anchor"] = _anchor_ask(outsiders.anchor, signed, shelf, now)
    return _all_at_once(asks, signed.checkpoint.size, patience)


def _proof_of(reader: LogReader) -> Callable[[int, int], Sequence[bytes]]:
    return lambda old, _new: reader.consistency(old)


def _stamp_ask(place: "StampPlace", signed: Signed, shelf: ProofShelf) -> Callable[[], Heard]:
    from dr_assets.vault.log.timestamp import stamp_checkpoint  # noqa: PLC0415 - wants an extra

    return lambda: stamp_checkpoint(place, signed, shelf)


def _anchor_ask(place: "AnchorPlace", signed: Signed, shelf: ProofShelf, now: datetime) -> Callable[[], Heard]:
    from dr_assets.vault.log.anchor import Chain, advance_anchor  # noqa: PLC0415 - wants an extra

    return lambda: advance_anchor(place, Chain(place), signed, shelf, now)


def _stamp_due(outsiders: Outsiders, reader: LogReader, shelf: ProofShelf, now: datetime) -> bool:
    from dr_assets.vault.log.timestamp import stamp_held  # noqa: PLC0415 - wants an extra

    if outsiders.stamps is None:
        return False
    for signed in _back(reader):
        if shelf.held(TIMESTAMP, signed.checkpoint.size):
            stamp = stamp_held(shelf, signed, outsiders.stamps.roots)
            if stamp:
                return signed.checkpoint.size != reader.checkpoint.size and now - stamp.at >= outsiders.stamp_every
    return True


def _all_at_once(asks: Mapping[str, Callable[[], Heard]], size: int, patience: timedelta) -> list[Heard]:
    told: dict[str, Heard | BaseException] = {}

    def ask(who: str, one: Callable[[], Heard]) -> None:
        try:
            told[who] = one()
        except BaseException as error:  # noqa: BLE001 - raised by who waits: our own bug must not pass for `away`
            told[who] = error

    threads = {who: threading.Thread(target=ask, args=(who, one), name=who, daemon=True) for who, one in asks.items()}
    for thread in threads.values():
        thread.start()
    deadline_s = time.monotonic() + patience.total_seconds()
    for thread in threads.values():
        thread.join(max(0.0, deadline_s - time.monotonic()))
    heard: list[Heard] = []
    for who in asks:
        outcome = told.get(who, Heard(who, "away", size, f"no answer within {patience.total_seconds():.0f} s"))
        if isinstance(outcome, BaseException):
            raise outcome
        heard.append(Heard(who, outcome.standing, outcome.size, outcome.detail))
    return heard


def newest_witnessed(outsiders: Outsiders, reader: LogReader) -> Witnessed | None:
    """The newest checkpoint with a quorum of believed cosignatures; None when none of the last 64 has one."""
    shelf, needed = VaultShelf(reader.files), max(outsiders.quorum, 1)
    for signed in _back(reader):
        held = [cosignature_held(shelf, signed, place) for place in outsiders.witnesses]
        times = sorted(cosigned_at(signature) for signature in held if signature)
        if len(times) >= needed:
            return Witnessed(signed.checkpoint.size, times[needed - 1])
    return None


def _back(reader: LogReader) -> "list[Signed]":
    """The newest checkpoints, this one first."""
    found = [reader.signed]
    for size in reader.files.sizes_down(reader.checkpoint.size):
        signed = read_checkpoint(reader.files, size, reader.checkpoint.origin)
        if signed:
            found.append(signed)
        if len(found) >= LOOK_BACK:
            break
    return found


def waiting_since(reader: LogReader, witnessed: Witnessed | None) -> datetime | None:
    """When the first leaf was made that no quorum has cosigned yet; None without such a leaf."""
    batch = reader.batch_at(witnessed.size if witnessed else 0)
    return batch.looked_at if batch else None


def amiss(outsiders: Outsiders, heard: Sequence[Heard], waiting: datetime | None, now: datetime) -> list[Amiss]:
    """What a person has to look at; `waiting` as `waiting_since` tells.

    Red: a witness was shown a fork or a rollback, or leaves wait longer for a quorum than the estate allows. The
    others are warnings: an outsider that is away, or doesn't do its part.
    """
    found = [
        Amiss(f"log.{one.standing}", red=True, detail=f"{one.who}: {one.detail}")
        for one in heard
        if one.standing in {"forked", "rolled_back"}
    ]
    if outsiders.quorum and waiting is not None and now - waiting > outsiders.cosigned_within:
        detail = (
            f"leaves wait since {waiting.isoformat()} for {outsiders.quorum} of {len(outsiders.witnesses)} witnesses"
        )
        found.append(Amiss("log.quorum_late", red=True, detail=detail))
    return found + [
        Amiss(f"log.outsider_{one.standing}", red=False, detail=f"{one.who}: {one.detail}")
        for one in heard
        if one.standing in {"away", "misbehaving"}
    ]


def _address(env: Mapping[str, str], name: str, *, tls: bool = True) -> str:
    url = _setting(env, name)
    if not url.lower().startswith(("http://", "https://")):
        raise PolicyError("log.bad_url", f"{name} holds no http(s) address", "for example https://witness.example.com")
    if tls:
        require_tls(url, name)
    return url


def _setting(env: Mapping[str, str], name: str) -> str:
    value = env.get(name, "")
    if not value:
        raise PolicyError(
            "vault.setting_missing", f"{name} is not set, the estate's `log` names it", f"export {name}=…"
        )
    return value


def _lacks_extra(name: str) -> PolicyError:
    return PolicyError(
        "log.extra_missing",
        f"the estate declares `log.{name}`, its library is missing",
        f"pip install dr_assets[{name}]",
    )
