"""Recovery targets: what a person may ask for, and what PostgreSQL is told.

What belongs here: parsing, the text form, the `recovery_target_*` settings. What stays out: whether a target can be
reached (plan.py) and proof that it was (recovery.py).
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Self

from dr_assets.estate.errors import PolicyError, SourceError
from dr_assets.stores.postgres.lsn import format_lsn, parse_lsn

Kind = Literal["latest", "immediate", "time", "lsn", "xid", "name"]

_FIRST_NORMAL_XID = 3
# PostgreSQL keeps names of restore points in 64 bytes with a terminating zero.
_NAME_MAX_BYTES = 63
_PREFIXED = re.compile(r"(lsn|xid|name|time):(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a recovery is to stop.

    `latest`: the end of what the vault holds. `immediate`: as soon as the base backup is consistent. `time`: behind
    the last commit whose time is not later than `at`. `lsn`: everything before byte `lsn`, nothing that begins there
    or later. `xid`: right behind that transaction's commit. `name`: at that restore point.
    """

    kind: Kind
    at: datetime | None = None
    lsn: int | None = None
    xid: int | None = None
    name: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `latest`, `immediate`, a time with its zone (or `time:…`), `lsn:0/1A2B3C4`, `xid:1234`, `name:text`.

        Raises PolicyError (`target.unreadable`).
        """
        text = text.strip()
        if text == "latest":
            return cls("latest")
        if text == "immediate":
            return cls("immediate")
        found = _PREFIXED.fullmatch(text)
        if found is None or found[1] == "time":
            return cls("time", at=_time(found[2] if found else text, text))
        if found[1] == "lsn":
            return cls("lsn", lsn=_lsn(found[2], text))
        if found[1] == "xid":
            return cls("xid", xid=_xid(found[2], text))
        return cls("name", name=_name(found[2], text))

    def __str__(self) -> str:
        """The form that `parse` reads."""
        if self.at is not None:
            return self.at.isoformat()
        if self.lsn is not None:
            return f"lsn:{format_lsn(self.lsn)}"
        if self.xid is not None:
            return f"xid:{self.xid}"
        if self.name is not None:
            return f"name:{self.name}"
        return self.kind

    def settings(self) -> dict[str, str]:
        """The server settings that stop recovery here; none for `latest`, whose end we prove ourselves.

        With no target at all PostgreSQL takes any unreadable record for the end of the WAL, and a target at the very
        end is fatal: hence no target for `latest`, on a server that cannot promote itself.
        """
        settings = self._where()
        if not settings:
            return {}
        return {**settings, "recovery_target_action": "pause"}

    def _where(self) -> dict[str, str]:
        if self.at is not None:
            return {"recovery_target_time": self.at.astimezone(UTC).isoformat(sep=" ", timespec="microseconds")}
        if self.lsn is not None:
            # Exclusive: inclusive would also replay the record that begins at the position.
            return {"recovery_target_lsn": format_lsn(self.lsn), "recovery_target_inclusive": "off"}
        if self.xid is not None:
            return {"recovery_target_xid": str(self.xid)}
        if self.name is not None:
            return {"recovery_target_name": self.name}
        return {"recovery_target": "immediate"} if self.kind == "immediate" else {}


def _time(text: str, given: str) -> datetime:
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise _unreadable(given, "it is neither a keyword nor a time") from None
    if at.tzinfo is None:
        raise _unreadable(given, "the time has no zone", hint="append Z for UTC, or an offset such as +02:00")
    return at.astimezone(UTC)


def _lsn(text: str, given: str) -> int:
    try:
        return parse_lsn(text)
    except SourceError as error:
        raise _unreadable(given, error.found, hint=error.hint) from None


def _xid(text: str, given: str) -> int:
    if not text.isascii() or not text.isdigit() or not _FIRST_NORMAL_XID <= int(text) < 1 << 64:
        raise _unreadable(given, f"a transaction id is a whole number from {_FIRST_NORMAL_XID} on")
    return int(text)


def _name(text: str, given: str) -> str:
    if len(text.encode()) > _NAME_MAX_BYTES or not text.isprintable():
        raise _unreadable(given, f"a restore point's name has at most {_NAME_MAX_BYTES} printable bytes")
    return text


def _unreadable(given: str, found: str, *, hint: str | None = None) -> PolicyError:
    return PolicyError(
        "target.unreadable",
        f"recovery target {given[:80]!r}: {found}",
        hint or "use latest, immediate, 2026-01-31T12:00:00Z, lsn:0/1A2B3C4, xid:1234 or name:before_release",
    )
