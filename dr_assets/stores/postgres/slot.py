"""The capture's physical replication slot, as the source sees it.

What belongs here: reading a slot's state and saying whether it still protects the WAL we need. What stays out:
creating it and streaming from it (protocol.py, resume.py).
"""

from dataclasses import dataclass

from dr_assets.stores.postgres.lsn import parse_lsn
from dr_assets.stores.postgres.session import Connection

_STATUS = """
SELECT slot_type, active, active_pid, wal_status, restart_lsn::text, safe_wal_size,
       pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END,
                       restart_lsn)::bigint
FROM pg_replication_slots WHERE slot_name = %s
"""


@dataclass(frozen=True, slots=True)
class SlotStatus:
    """One slot in pg_replication_slots.

    `wal_status` is PostgreSQL's word: reserved, extended, unreserved (WAL may vanish at the next checkpoint) or lost
    (it has). `retained_bytes` is the WAL the source keeps for us, `safe_bytes` what it may still write before the
    slot can be lost (None: no limit is set).
    """

    name: str
    slot_type: str
    active: bool
    active_pid: int | None
    wal_status: str
    restart_lsn: int | None
    retained_bytes: int
    safe_bytes: int | None

    @property
    def is_lost(self) -> bool:
        """Whether WAL that we had not vaulted may be gone for good."""
        return self.wal_status == "lost"


def slot_status(connection: Connection, name: str) -> SlotStatus | None:
    """The slot's state now, None when there is none of that name. Raises psycopg.Error."""
    row = connection.execute(_STATUS, (name,)).fetchone()
    if row is None:
        return None
    slot_type, active, active_pid, wal_status, restart_lsn, safe_bytes, retained_bytes = row
    return SlotStatus(
        name=name,
        slot_type=str(slot_type),
        active=bool(active),
        active_pid=active_pid if isinstance(active_pid, int) else None,
        wal_status=str(wal_status),
        restart_lsn=None if restart_lsn is None else parse_lsn(str(restart_lsn)),
        retained_bytes=retained_bytes if isinstance(retained_bytes, int) else 0,
        safe_bytes=safe_bytes if isinstance(safe_bytes, int) else None,
    )
