"""What outsiders know: the payment provider and the game provider, each with a record of its own.

What belongs here: the two files of a worker, written as things happen out there, and reading them back. What stays out:
the ledger (nothing here ever asks it) and the formats in which outsiders send what they know (provider_files.py).

`<run>.<worker>.provider` has a line of JSON per thing that the payment provider did: a payment captured before the
ledger is told of it, a payout made before the ledger posts it, a refund or chargeback that the ledger may hear of
later, a reversal where the casino refused what had been done. `<run>.<worker>.rounds` has one per stake and win that
the game provider sent, with what it was told: `acknowledged`, `refused`, or `unknown`. Every line is one write(2).
Amounts are whole minor units, written as text; `at_ns` is on the workload's clock.
"""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self
from zlib import crc32

Doing = Literal["payment", "refund", "chargeback", "payout", "reversal"]
Told = Literal["acknowledged", "refused", "unknown"]
_PROVIDER: Final = ".provider"
_ROUNDS: Final = ".rounds"


@dataclass(frozen=True, slots=True)
class Act:
    """Something the payment provider does; what comes in to us is above zero, what goes out below.

    `original_reference` is what a refund, chargeback or reversal undoes.
    """

    kind: Doing
    reference: str
    player_id: int
    currency: str
    gross_minor: int
    original_reference: str | None = None

    @property
    def undone(self) -> "Act":
        """The same money the other way: a payment voided, a payout returned."""
        reference = f"{self.reference}-back"
        return Act("reversal", reference, self.player_id, self.currency, -self.gross_minor, self.reference)


@dataclass(frozen=True, slots=True)
class Stake:
    """A stake or a win that the game provider sends, above zero; `opened_by` is the stake's reference of a win."""

    kind: Literal["bet", "win"]
    player_id: int
    currency: str
    amount_minor: int
    opened_by: str | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """An act on record: what it cost, when it was done."""

    act: Act
    fee_minor: int
    at_ns: int


@dataclass(frozen=True, slots=True)
class Round:
    """A stake or win on record. `reference` is the idempotency key under which it was sent."""

    stake: Stake
    reference: str
    status: Told
    at_ns: int


def fee_minor(act: Act) -> int:
    """What the provider takes: its cards differ, so the reference decides; the same one always costs the same."""
    draw = crc32(act.reference.encode())
    match act.kind:
        case "payment":
            return 10 + draw % 16 + act.gross_minor * (90 + draw % 200) // 10_000
        case "payout":
            return 20 + draw % 41
        case "chargeback":
            return 1500
        case _:
            return 0


class OutsideLog:
    """The two files of one worker, created new; a context manager. Raises FileExistsError rather than share a file."""

    def __init__(self, folder: Path, run: str, worker: int) -> None:
        self._provider = _create(folder / f"{run}.{worker:03d}{_PROVIDER}")
        self._rounds = _create(folder / f"{run}.{worker:03d}{_ROUNDS}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._provider)
        os.close(self._rounds)

    def did(self, act: Act) -> None:
        """The payment provider did this, now."""
        line = asdict(act) | {"gross_minor": str(act.gross_minor), "fee_minor": str(fee_minor(act))}
        _write(self._provider, line)

    def told(self, stake: Stake, reference: str, status: Told) -> None:
        """The game provider was told this of what it sent, now."""
        line = asdict(stake) | {"amount_minor": str(stake.amount_minor), "reference": reference, "status": status}
        _write(self._rounds, line)


def _create(path: Path) -> int:
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_WRONLY, 0o644)


def _write(file: int, line: dict[str, Any]) -> None:
    os.write(file, f"{json.dumps(line | {'at_ns': time.time_ns()})}\n".encode())


def provider_record(folder: Path) -> list[Done]:
    """Everything that the payment provider did, oldest first. A torn last line is left out."""
    found = [
        Done(
            Act(
                line["kind"],
                line["reference"],
                line["player_id"],
                line["currency"],
                int(line["gross_minor"]),
                line["original_reference"],
            ),
            int(line["fee_minor"]),
            line["at_ns"],
        )
        for line in _lines(folder, _PROVIDER)
    ]
    return sorted(found, key=lambda done: (done.at_ns, done.act.reference))


def rounds_record(folder: Path) -> list[Round]:
    """Every stake and win that the game provider sent, oldest first. A torn last line is left out."""
    found = [
        Round(
            Stake(line["kind"], line["player_id"], line["currency"], int(line["amount_minor"]), line["opened_by"]),
            line["reference"],
            line["status"],
            line["at_ns"],
        )
        for line in _lines(folder, _ROUNDS)
    ]
    return sorted(found, key=lambda played: (played.at_ns, played.reference))


def _lines(folder: Path, suffix: str) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob(f"*{suffix}")):
        content = path.read_bytes()
        for line in content[: content.rfind(b"\n") + 1].splitlines():
            yield json.loads(line)
