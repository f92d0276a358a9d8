"""A store that records every call and can fail at exactly one of them, in each way that a store can fail.

What belongs here: naming calls and injecting one fault. What stays out: which jobs are swept and what must hold
afterwards (sweep.py and the tests).

A call is named by its method, the stream that it is about, and its number among the calls so named: unlike a running
number that name stays the same however the threads of a job interleave. A killed process stays dead: every later
call of any of its threads ends as the first did, with no effect.
"""

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, Literal

from dr_assets.estate.errors import VaultError
from dr_assets.vault.storage import Blob, Head, ObjectStore, Put, Version
from dr_assets.vault.storage.refusals import unreachable

Fault = Literal["killed_before", "killed_after", "busy", "lost_answer", "refused", "lying"]

METHODS: Final = tuple(name for name in vars(ObjectStore) if not name.startswith("_"))
READS: Final = frozenset(
    {"head", "get", "get_range", "list_versions", "list_name", "list_level", "now", "recent_now", "bucket_state"}
)
_READ_FAULTS: Final[tuple[Fault, ...]] = ("killed_before", "busy", "refused", "lying")
_WRITE_FAULTS: Final[tuple[Fault, ...]] = ("killed_before", "killed_after", "busy", "lost_answer", "refused", "lying")
_WRONG_BY: Final = timedelta(hours=1)


class KilledError(BaseException):
    """The process is gone. No `except Exception` and no `except VaultError` stops it, as none stops SIGKILL."""


@dataclass(frozen=True, slots=True, order=True)
class Call:
    """The `number`th call of `method` about `stream` (empty for what is about no object)."""

    method: str
    stream: str
    number: int

    def __str__(self) -> str:
        return f"{self.method} {self.stream or '-'} #{self.number}"

    @property
    def faults(self) -> tuple[Fault, ...]:
        """In what ways it can fail; before or after makes no difference to what only reads."""
        return _READ_FAULTS if self.method in READS else _WRITE_FAULTS


class FaultyStore:
    """Stands before `inner`. With `at` and `fault` that one call fails; `fired` is set once it did."""

    def __init__(self, inner: ObjectStore, at: Call | None = None, fault: Fault | None = None) -> None:
        self.inner = inner
        self.at = at
        self.fault = fault
        self.calls: list[Call] = []
        self.fired = threading.Event()
        self.ended: BaseException | None = None  # what every call ends with once the process or its rights are gone
        self._counts: Counter[tuple[str, str]] = Counter()
        self._mutex = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)
        if name not in METHODS:
            return method
        return lambda *arguments, **named: self._call(name, method, arguments, named)

    def _call(self, name: str, method: Any, arguments: Sequence[Any], named: dict[str, Any]) -> Any:
        with self._mutex:
            if self.ended is not None:
                raise self.ended
            subject = _stream_of(arguments)
            self._counts[name, subject] += 1
            call = Call(name, subject, self._counts[name, subject])
            self.calls.append(call)
            if call != self.at:
                return method(*arguments, **named)
            # Within the mutex: nothing that another thread does may fall between the effect and the death.
            self.fired.set()
            return self._fail(call, method, arguments, named)

    def _fail(self, call: Call, method: Any, arguments: Sequence[Any], named: dict[str, Any]) -> Any:
        match self.fault:
            case "killed_before":
                raise self._end(KilledError(str(call)))
            case "killed_after":
                method(*arguments, **named)
                raise self._end(KilledError(str(call)))
            case "refused":
                raise self._end(VaultError("vault.refused_credentials", f"{call}: not yours any more", "ask for them"))
            case "lost_answer":
                method(*arguments, **named)
                raise unreachable(str(call), "the answer was lost")
            case "lying":
                return _lie(method(*arguments, **named), call)
            case _:
                raise unreachable(str(call), "busy")

    def _end(self, error: BaseException) -> BaseException:
        self.ended = error
        return error


def _stream_of(arguments: Sequence[Any]) -> str:
    """The stream that a key or prefix lies in, the ids of base backups left out: they differ from run to run."""
    if not arguments or not isinstance(arguments[0], str):
        return ""
    parts = arguments[0].split("/")
    stream = parts[2] if len(parts) > 2 else ""
    return "base-*" if stream.startswith("base-") else stream


def _lie(answer: Any, call: Call) -> Any:
    """The answer cut short or altered, or a listing whose last page never comes."""
    match answer:
        case Head():
            return replace(answer, sha256="00" * 32, lock=None)
        case Blob():
            return Blob(answer.head, answer.data[: len(answer.data) // 2])
        case bytes():
            return answer[: len(answer) // 2]
        case Put():
            return replace(answer, store_at=answer.store_at + _WRONG_BY)
        case Iterator():
            return _broken_off(list(answer), call)
    if call.method in {"now", "recent_now"}:
        return answer + _WRONG_BY
    raise unreachable(str(call), "half an answer")


def _broken_off(rows: list[Version], call: Call) -> Iterator[Version]:
    yield from rows[: len(rows) // 2]
    raise unreachable(str(call), "the next page does not come")
