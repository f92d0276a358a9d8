"""Seeing that commits wait for the vault, before anybody says so.

What belongs here: a commit of our own at `synchronous_commit=on` and what is seen of it. What stays out: when to probe
and what follows (sync_guard.py).

The setting alone proves nothing: sessions show its new value at once, and their commits wait only once the server's
checkpointer has taken it over, which it does late while it is busy with a checkpoint.
"""

import contextlib
import time
from typing import Final

import psycopg
from psycopg.pq import ExecStatus, TransactionStatus

from dr_assets.stores.postgres.lsn import parse_lsn
from dr_assets.stores.postgres.session import Connection, connect

APPLICATION_NAME: Final = "dr-assets durability probe"
_UNSEEN = "no commit was seen to wait: the server has not taken the setting over yet"
_CONFIRMED_TIMES = 5
_LOOK_EVERY_S = 0.001
_AGAIN_AFTER_S = 0.02
_FINISH_WITHIN_S = 0.25
# Transactional: it gets a transaction id and a commit record, without which no commit waits. It changes no table.
_COMMIT = b"SELECT pg_logical_emit_message(true, 'dr-assets', 'probe')::text"
_WAITS = "SELECT coalesce(bool_or(wait_event = 'SyncRep'), false) FROM pg_stat_activity WHERE pid = %s"
_VAULTED = "SELECT restart_lsn::text FROM pg_replication_slots WHERE slot_name = %s"


def why_unproven(dsn: str, watching: Connection, slot: str, *, alone: bool, within_s: float) -> str | None:
    """Commit until one is seen to wait: None then, else what was seen instead within `within_s`.

    `alone` says that nobody but us is asked for, so whoever waits, waits for us. Beside others a wait says nothing:
    there five commits in a row must find themselves confirmed by `slot` as they return. A probe that waits on is
    cancelled, so a vault that is away holds up nobody here. Raises psycopg.Error, and `connect`'s errors.
    """
    probe = connect(dsn, application_name=APPLICATION_NAME, connect_timeout_s=3)
    deadline_s, confirmed = time.monotonic() + within_s, 0
    try:
        probe.execute("SET synchronous_commit = on")
        while confirmed < _CONFIRMED_TIMES:
            probe.pgconn.send_query(_COMMIT)
            waited = _returns_or_waits(watching, probe, deadline_s, alone=alone)
            if waited:
                return None
            if probe.pgconn.is_busy():
                return _UNSEEN if alone else "a commit waits, and it is not seen yet whether for the vault as well"
            in_vault = _vaulted(watching, slot) > _committed(probe)
            confirmed = confirmed + 1 if in_vault and not alone else 0
            if time.monotonic() > deadline_s:
                return _UNSEEN
            time.sleep(_AGAIN_AFTER_S)
    finally:
        _let_go(watching, probe)
    return None


def _returns_or_waits(watching: Connection, probe: Connection, deadline_s: float, *, alone: bool) -> bool:
    """True once it is seen to wait for us; False when it has returned, or the time is up."""
    while True:
        probe.pgconn.consume_input()
        if not probe.pgconn.is_busy():
            return False
        row = watching.execute(_WAITS, (probe.info.backend_pid,)).fetchone()
        if alone and row == (True,):
            return True
        if time.monotonic() > deadline_s:
            return False
        time.sleep(_LOOK_EVERY_S)


def _committed(probe: Connection) -> int:
    """Where the probe's record ends; its commit record follows. Raises psycopg.OperationalError for a refusal."""
    lsn: bytes | None = None
    while (result := probe.pgconn.get_result()) is not None:
        if result.status != ExecStatus.TUPLES_OK:
            raise psycopg.OperationalError(result.error_message.decode(errors="replace").strip())
        lsn = result.get_value(0, 0)
    if lsn is None:
        raise psycopg.DataError("the server returned no position")
    return parse_lsn(lsn.decode())


def _vaulted(watching: Connection, slot: str) -> int:
    row = watching.execute(_VAULTED, (slot,)).fetchone()
    return 0 if row is None or row[0] is None else parse_lsn(str(row[0]))


def _let_go(watching: Connection, probe: Connection) -> None:
    """End the session; a commit that still waits is given a moment, then cancelled: closing would not end its wait."""
    deadline_s = time.monotonic() + _FINISH_WITHIN_S
    with contextlib.suppress(psycopg.Error):  # it may be gone already, and so may the server
        while probe.pgconn.transaction_status == TransactionStatus.ACTIVE:
            probe.pgconn.consume_input()
            if not probe.pgconn.is_busy():
                break
            if time.monotonic() > deadline_s:
                watching.execute("SELECT pg_cancel_backend(%s)", (probe.info.backend_pid,))
                break
            time.sleep(_LOOK_EVERY_S)
    probe.close()
