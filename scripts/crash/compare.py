"""Holding the vault to the servers: chains against WAL files, ledgers against what was acknowledged.

What belongs here: reading both sides and the differences. What stays out: what a difference means for a round.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import psycopg

from dr_assets.casino.acks import read_acks
from dr_assets.engines.postgres import PostgresServer
from dr_assets.stores.postgres.capture_facts import Anchor, anchor_of
from dr_assets.vault.chain import resolve
from scripts.crash.scene import DATASET, Scene

_SEGMENT_BYTES: Final = 16 << 20
_TRANSFERS: Final = (
    "SELECT transfer_id, idempotency_key FROM casino.transfers WHERE split_part(idempotency_key, '/', 1) = ANY(%s)"
)

Transfer = tuple[int, str]


@dataclass(frozen=True)
class Told:
    """What the casino's clients were told: acknowledged transfers with their time, and those with a warning."""

    acknowledged: dict[Transfer, int]
    warned: frozenset[Transfer]
    runs: tuple[str, ...]


@dataclass(frozen=True)
class Walked:
    """A stretch of one timeline's chain, compared with the server's own files."""

    end: int
    size_bytes: int
    orphans: int
    holes: int
    failures: tuple[str, ...]


def told(ack_dir: Path) -> Told:
    """Read an acknowledgement folder."""
    record = read_acks(ack_dir)
    acknowledged = {
        (row["transfer_id"], row["idempotency_key"]): row["at_ns"] for row in record.acks.to_pylist()
    }  # fmt: skip
    warned = frozenset((row["transfer_id"], row["idempotency_key"]) for row in record.warned.to_pylist())
    return Told(acknowledged, warned, record.runs)


def held(dsn: str, runs: tuple[str, ...]) -> set[Transfer]:
    """The transfers of these runs that a ledger has; by id *and* key, since a restored sequence hands ids out again."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        return {(row[0], row[1]) for row in connection.execute(_TRANSFERS, (list(runs),))}


def window_ms(lost: dict[Transfer, int], crashes: list[datetime]) -> float:
    """The longest time from a first lost acknowledgement to the crash that cost it."""
    longest = 0.0
    for number, at in enumerate(crashes):
        begin_ns = 0 if number == 0 else crashes[number - 1].timestamp() * 1e9
        end_ns = at.timestamp() * 1e9
        is_last = number == len(crashes) - 1
        own = [at_ns for at_ns in lost.values() if at_ns >= begin_ns and (at_ns < end_ns or is_last)]
        if own:
            longest = max(longest, (end_ns - min(own)) / 1e6)
    return round(longest, 1)


def walk(scene: Scene, server: PostgresServer, timeline: int) -> Walked:
    """Every new segment of a timeline continues the one before it and holds what the server's own files hold."""
    anchor = _anchor(scene, timeline)
    begin, previous = scene.walked.get(timeline, (anchor.begin, None))
    listed = scene.vault.objects(
        DATASET, "wal", system_id=anchor.system_id, timeline=timeline, start_after_position=begin
    )
    chain = resolve(listed, scene.vault.header, begin)
    failures = []
    for segment in chain.segments:
        opened = scene.vault.open(segment)
        if opened.header.previous != previous:
            failures.append(f"{segment.key} does not continue the segment before it")
        if opened.plaintext != _server_wal(server, timeline, segment.key.first, segment.key.last):
            failures.append(f"{segment.key} differs from the server's WAL")
        previous = opened.header.digest
    scene.walked[timeline] = (chain.end, previous)
    return Walked(chain.end, chain.end - begin, len(chain.orphans), len(chain.holes), tuple(failures[:3]))


def _anchor(scene: Scene, timeline: int) -> Anchor:
    system_id = scene.server.pg_controldata()["Database system identifier"]
    anchor = anchor_of(scene.vault, DATASET, system_id, timeline)
    if anchor is None:
        raise RuntimeError(f"the capture left no fact about timeline {timeline}")
    return anchor


def _server_wal(server: PostgresServer, timeline: int, begin: int, end: int) -> bytes:
    parts = []
    for number in range(begin // _SEGMENT_BYTES, -(-end // _SEGMENT_BYTES)):
        first = number * _SEGMENT_BYTES
        name = f"{timeline:08X}{number // 256:08X}{number % 256:08X}"
        data = _read(server.data_dir / "pg_wal", name)
        parts.append(data[max(begin, first) - first : min(end, first + _SEGMENT_BYTES) - first])
    return b"".join(parts)


def _read(folder: Path, name: str) -> bytes:
    """A promotion ends the old timeline's last file by another name."""
    path = folder / name
    return path.read_bytes() if path.exists() else (folder / f"{name}.partial").read_bytes()
