"""The servers that may be the source: which are known, and which of them is the primary now.

What belongs here: choosing by a connection string with several hosts, or by Patroni's word. What stays out: whether the
chosen one's history is the one that was captured (follow.py), and the slots on the others (standbys.py).

libpq would take the first primary that answers. After a split there may be two, so each is asked for its timeline, and
the newest wins; what is older than what was captured is refused later on.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from dr_assets.estate.errors import SourceError
from dr_assets.stores.postgres.dsn import describe_dsn, dsn_of_node, node_dsns
from dr_assets.stores.postgres.patroni import Member, PatroniSilentError, find_members, leader
from dr_assets.stores.postgres.protocol import ConnectionLostError, ReplicationConnection, ServerRefusedError


@dataclass(frozen=True, slots=True)
class _Candidate:
    connection: ReplicationConnection
    timeline: int


class Nodes:
    """The servers behind one DSN, by its hosts and by what Patroni tells. Not for several threads at once.

    A server that ended our stream in order is being stopped: `rest` keeps us away from it, not from the others.
    """

    def __init__(self, dsn: str, patroni: Sequence[str] = ()) -> None:
        self._dsn = dsn
        self._patroni = tuple(patroni)
        self._told: list[str] = []
        self._resting: dict[str, float] = {}
        self._leader: str | None = None
        self.trouble: str | None = None

    @property
    def are_several(self) -> bool:
        """Whether another server than the one we stream from may be the next primary."""
        return bool(self._patroni) or len(node_dsns(self._dsn)) > 1

    def dsns(self) -> list[str]:
        """A DSN for each server that is known by now."""
        return self._told or node_dsns(self._dsn)

    def members(self) -> list[str]:
        """A DSN for each server that is known, Patroni asked anew."""
        if self._patroni:
            self._leader = None
            with suppress(PatroniSilentError):
                self._note(find_members(self._patroni))
        return self.dsns()

    @property
    def told_leader(self) -> str | None:
        """The DSN of whom Patroni named as the leader when it was asked last; None where it named nobody."""
        return self._leader

    def rest(self, dsn: str, for_s: float) -> None:
        """Don't connect to this server for a while."""
        self._resting[dsn] = time.monotonic() + for_s

    def open_primary(self, *, application_name: str, connect_timeout_s: int) -> ReplicationConnection:
        """A replication connection to the primary; its `dsn` is that one server's.

        A lone server is given as it is, be it a standby. Raises ConnectionLostError when there is no primary now, and
        for a lone server what `ReplicationConnection.open` raises.
        """
        wanted = self._wanted()
        awake = [dsn for dsn in wanted if self._resting.get(dsn, 0.0) <= time.monotonic()]
        if not awake:
            raise ConnectionLostError(f"{_names(wanted)} is being stopped: not asked again yet")
        if not self.are_several:
            return ReplicationConnection.open(
                awake[0], application_name=application_name, connect_timeout_s=connect_timeout_s
            )
        return self._newest(awake, application_name, connect_timeout_s)

    def _wanted(self) -> list[str]:
        """Whom to ask: whom Patroni names, or every host while it says nothing."""
        self.trouble = None
        if not self._patroni:
            return node_dsns(self._dsn)
        try:
            members = find_members(self._patroni)
        except PatroniSilentError as error:
            self.trouble = f"patroni says nothing, every known server is asked instead: {error}"
            return self.dsns()
        self._note(members)
        if self._leader is None:
            raise ConnectionLostError(f"patroni knows no leader among {', '.join(member.name for member in members)}")
        return [self._leader]

    def _note(self, members: Sequence[Member]) -> None:
        self._told = [dsn_of_node(self._dsn, member.host, member.port) for member in members]
        chosen = leader(members)
        self._leader = None if chosen is None else dsn_of_node(self._dsn, chosen.host, chosen.port)

    def _newest(self, dsns: list[str], application_name: str, connect_timeout_s: int) -> ReplicationConnection:
        with ThreadPoolExecutor(len(dsns), thread_name_prefix="nodes") as pool:
            found = list(pool.map(lambda dsn: _ask(dsn, application_name, connect_timeout_s), dsns))
        primaries = [each for each in found if isinstance(each, _Candidate)]
        if not primaries:
            reasons = "; ".join(f"{describe_dsn(dsn)}: {why}" for dsn, why in zip(dsns, found, strict=True))
            raise ConnectionLostError(f"no primary: {reasons}")
        chosen = max(primaries, key=lambda each: each.timeline)
        for each in primaries:
            if each is not chosen:
                each.connection.close()
        return chosen.connection


def _ask(dsn: str, application_name: str, connect_timeout_s: int) -> _Candidate | str:
    """A primary, connected; or in words why this server is none."""
    try:
        connection = ReplicationConnection.open(
            dsn, application_name=application_name, connect_timeout_s=connect_timeout_s
        )
    except (ConnectionLostError, SourceError) as error:
        return str(error)
    try:
        if connection.is_standby:
            connection.close()
            return "a standby"
        return _Candidate(connection, connection.identify_system().timeline)
    except (ConnectionLostError, ServerRefusedError) as error:
        connection.close()
        return str(error)


def _names(dsns: Sequence[str]) -> str:
    return ", ".join(describe_dsn(dsn) for dsn in dsns)
