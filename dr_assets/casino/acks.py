"""The workload's own record of what the casino acknowledged: written before the next transaction, read back for loss.

What belongs here: the files of an acknowledgement folder. What stays out: comparing them with a database (loss.py).

Each worker of each run appends to four files of its own, so that nothing is shared and nothing is overwritten:
`<run>.<worker>.acks` has a line `<transfer id> <n> <ns>` per acknowledged commit, `<run>.<worker>.warned` such a line
per commit that came with a WARNING (a wait for synchronous standbys that was cancelled: durable there, promised
nowhere else), `<run>.<worker>.replayed` such a line per attempt that was answered only when it was repeated (from what
was there already, which waits for no standby), `<run>.<worker>.unknown` a line `<n> <ns>` per attempt whose connection
died before the answer. `<run>/<worker>/<n>` is the attempt's idempotency key, ns the time since the epoch on the
workload's clock. Every line is one write(2): it survives the death of any process (not of the host, which a drill of
processes does not need).
"""

import io
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ACKS = pa.schema([("transfer_id", pa.int64()), ("attempt", pa.int64()), ("at_ns", pa.int64())])
_UNKNOWN = pa.schema([("attempt", pa.int64()), ("at_ns", pa.int64())])


@dataclass(frozen=True)
class Ack:
    """One acknowledged commit; `at_ns` since the epoch, taken right after the answer arrived."""

    transfer_id: int
    idempotency_key: str
    at_ns: int

    @property
    def acknowledged_at(self) -> datetime:
        """`at_ns` as an aware datetime, cut to microseconds."""
        return _EPOCH + timedelta(microseconds=self.at_ns // 1000)


@dataclass(frozen=True)
class AckRecord:
    """All that a folder says. `unknown` has idempotency_key and at_ns, the other tables transfer_id as well.

    `torn_lines` counts last lines that a killed workload left without their end: never acknowledged to anyone else,
    so they count as in flight.
    """

    acks: pa.Table
    warned: pa.Table
    replayed: pa.Table
    unknown: pa.Table
    runs: tuple[str, ...]
    torn_lines: int


class AckLog:
    """One worker's four files, created new; a context manager. Raises FileExistsError rather than share a file."""

    def __init__(self, ack_dir: Path, run: str, worker: int) -> None:
        self.key_prefix = f"{run}/{worker:03d}/"
        self._acks = _create(ack_dir / f"{run}.{worker:03d}.acks")
        self._warned = _create(ack_dir / f"{run}.{worker:03d}.warned")
        self._replayed = _create(ack_dir / f"{run}.{worker:03d}.replayed")
        self._unknown = _create(ack_dir / f"{run}.{worker:03d}.unknown")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in (self._acks, self._warned, self._replayed, self._unknown):
            os.close(file)

    def acknowledged(self, transfer_id: int, attempt: int) -> None:
        """Write one acknowledged commit through to the kernel, stamped now."""
        os.write(self._acks, f"{transfer_id} {attempt} {time.time_ns()}\n".encode())

    def warned(self, transfer_id: int, attempt: int) -> None:
        """Write one commit that was answered with a WARNING, stamped now."""
        os.write(self._warned, f"{transfer_id} {attempt} {time.time_ns()}\n".encode())

    def replayed(self, transfer_id: int, attempt: int) -> None:
        """Write one attempt that was answered when it was repeated, stamped now."""
        os.write(self._replayed, f"{transfer_id} {attempt} {time.time_ns()}\n".encode())

    def unknown(self, attempt: int) -> None:
        """Write one attempt whose outcome nobody knows, stamped now."""
        os.write(self._unknown, f"{attempt} {time.time_ns()}\n".encode())


def _create(path: Path) -> int:
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_WRONLY, 0o644)


def acknowledged(ack_dir: Path) -> Iterator[Ack]:
    """Every acknowledged commit of every run in the folder, in no particular order. A torn last line is left out."""
    for batch in read_acks(ack_dir).acks.to_batches():
        for row in batch.to_pylist():
            yield Ack(row["transfer_id"], row["idempotency_key"], row["at_ns"])


def read_acks(ack_dir: Path) -> AckRecord:
    """Read a folder back, also while a workload is writing to it (then: what was complete at that moment)."""
    acks, torn_acks = _read_all(ack_dir, ".acks", _ACKS)
    warned, torn_warned = _read_all(ack_dir, ".warned", _ACKS)
    replayed, torn_replayed = _read_all(ack_dir, ".replayed", _ACKS)
    unknown, torn_unknown = _read_all(ack_dir, ".unknown", _UNKNOWN)
    runs = tuple(sorted({path.name.split(".", 1)[0] for path in ack_dir.glob("*.acks")}))
    torn_lines = torn_acks + torn_warned + torn_replayed + torn_unknown
    return AckRecord(acks, warned, replayed, unknown, runs, torn_lines)


def _read_all(ack_dir: Path, suffix: str, schema: pa.Schema) -> tuple[pa.Table, int]:
    tables = [_with_key(pa.Table.from_batches([], schema), "")]
    torn_lines = 0
    for path in sorted(ack_dir.glob(f"*{suffix}")):
        content = path.read_bytes()
        end = content.rfind(b"\n") + 1
        torn_lines += end < len(content)
        if end:
            run, worker = path.name.removesuffix(suffix).split(".")
            tables.append(_with_key(_parse(content[:end], schema), f"{run}/{worker}/"))
    return pa.concat_tables(tables), torn_lines


def _parse(lines: bytes, schema: pa.Schema) -> pa.Table:
    return csv.read_csv(
        io.BytesIO(lines),
        read_options=csv.ReadOptions(column_names=schema.names, use_threads=False),
        parse_options=csv.ParseOptions(delimiter=" "),
        convert_options=csv.ConvertOptions(column_types=schema),
    )


def _with_key(table: pa.Table, prefix: str) -> pa.Table:
    keys = pc.binary_join_element_wise(prefix, table["attempt"].cast(pa.string()), "")
    return table.drop_columns("attempt").append_column("idempotency_key", keys)
