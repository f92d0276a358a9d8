"""Being the one capture of a dataset: a consumer group of the source's own, of which one member is the owner.

What belongs here: joining, heartbeats, standing by, noticing that somebody else has taken over. What stays out: what an
owner does.

Kafka's group protocol gives one leader per generation; it names the owner, the one there is before any other. Whoever
was away for longer than the session is fenced by the coordinator. A pack of a fenced owner may still land, as one of a
dead capture may: the strict chain and the writer's epoch settle that (decision 0014).
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from kafka.protocol.consumer.group import (
    HeartbeatRequest,
    JoinGroupRequest,
    LeaveGroupRequest,
    SyncGroupRequest,
)

from dr_assets.estate.errors import SourceError
from dr_assets.stores.kafka.line import Line
from dr_assets.stores.kafka.refusals import (
    ILLEGAL_GENERATION,
    MEMBER_ID_REQUIRED,
    REBALANCE_IN_PROGRESS,
    UNKNOWN_MEMBER_ID,
    BrokerError,
)
from dr_assets.stores.kafka.wire import Cluster

PROTOCOL_TYPE: Final = "dr-assets"
_PROTOCOL: Final = "owner"
_OWNER: Final = b"owner"
_REBALANCE_S: Final = 30.0
_BEATS_A_SESSION: Final = 3
_ANSWER_S: Final = 10.0
_REJOIN: Final = frozenset({REBALANCE_IN_PROGRESS})
_LOST: Final = frozenset({ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID})


def group_of(estate: str, dataset: str) -> str:
    """The group's name: one for each dataset of each estate."""
    return f"dr-assets.{estate}.{dataset}"


class _LostError(Exception):
    """The coordinator does not know us any more."""


class Owner:
    """One member. First `take`, then it keeps its place in a thread of its own until `close`."""

    def __init__(self, cluster: Cluster, group: str, *, session_s: float) -> None:
        self._cluster = cluster
        self._group = group
        self._session_s = session_s
        self._line: Line | None = None
        self._member = ""
        self._generation = -1
        self._is_owner = False
        self._heard_s = 0.0
        self._tried_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"own-{group}", daemon=True)
        self.trouble: str | None = None
        self.error: BaseException | None = None

    def take(self, stopped: Callable[[], bool], waiting: Callable[[str | None], None], *, stand_by: bool) -> bool:
        """Become the owner; False when a stop came first. `waiting` is called while another one is, or with a trouble.

        Raises SourceError: `kafka.owned` unless we may `stand_by`, and what the cluster refuses.
        """
        while not stopped():
            try:
                if not self._member:
                    self._join()
                if self._is_owner:
                    self._thread.start()
                    return True
                if not stand_by:
                    self._leave()
                    raise _owned(self._group)
                waiting(None)
                self._stop.wait(self._session_s / _BEATS_A_SESSION)
                self._beat()
            except _LostError:
                self._member = ""
            except SourceError as error:
                self._drop_line()
                transient = isinstance(error, BrokerError) and error.is_transient
                if error.code not in {"kafka.unreachable", "kafka.timeout"} and not transient:
                    raise
                waiting(f"{error.code}: {error.found}")
                self._stop.wait(1.0)
        self._leave()
        return False

    def may_write(self) -> bool:
        """Whether we are known to be the owner, or nobody can become it since no coordinator answers.

        Not after a pause in which we heard nothing and did not ask: then a heartbeat tells first.
        """
        now_s = time.monotonic()
        return now_s - self._heard_s < self._session_s or now_s - self._tried_s < self._session_s

    def require(self) -> None:
        """Raise SourceError `kafka.fenced` when another capture has taken over."""
        if isinstance(self.error, SourceError):
            raise self.error

    def close(self) -> None:
        """Leave the group, so that whoever stands by goes on at once."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_ANSWER_S)
        self._leave()

    # -- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stop.wait(self._session_s / _BEATS_A_SESSION):
            try:
                self._beat()
                if not self._is_owner:
                    raise _fenced(self._group)  # noqa: TRY301 - it ends the thread as every other error does
                self.trouble = None
            except _LostError:
                self.error = _fenced(self._group)
                return
            except SourceError as error:
                if error.code == "kafka.fenced":
                    self.error = error
                    return
                self._drop_line()
                self._tried_s = time.monotonic()
                self.trouble = f"the group's coordinator: {error.code}: {error.found}"
            except BaseException as error:  # noqa: BLE001 - a thread's bug must end the capture, so it crosses over
                self.error = error
                return

    def _beat(self) -> None:
        response = self._ask(HeartbeatRequest(
            group_id=self._group, generation_id=self._generation, member_id=self._member, group_instance_id=None,
        ))  # fmt: skip
        if response.error_code in _REJOIN:
            self._join()
            return
        self._check(response.error_code)
        self._heard_s = self._tried_s = time.monotonic()

    def _join(self) -> None:
        """Join the group, or its next generation, and hear who owns the dataset."""
        while True:
            joined = self._ask(self._join_request(), wait_s=_REBALANCE_S)
            if joined.error_code == MEMBER_ID_REQUIRED:
                self._member = joined.member_id
                continue
            self._check(joined.error_code)
            self._member, self._generation = joined.member_id, joined.generation_id
            synced = self._ask(self._sync_request(joined), wait_s=_REBALANCE_S)
            if synced.error_code in _REJOIN:
                continue
            self._check(synced.error_code)
            self._is_owner = bytes(synced.assignment) == _OWNER
            self._heard_s = self._tried_s = time.monotonic()
            return

    def _join_request(self) -> JoinGroupRequest:
        protocol = JoinGroupRequest.JoinGroupRequestProtocol(name=_PROTOCOL, metadata=_OWNER if self._is_owner else b"")
        return JoinGroupRequest(
            group_id=self._group, session_timeout_ms=int(self._session_s * 1000),
            rebalance_timeout_ms=int(_REBALANCE_S * 1000), member_id=self._member, group_instance_id=None,
            protocol_type=PROTOCOL_TYPE, protocols=[protocol], reason=None,
        )  # fmt: skip

    def _sync_request(self, joined: Any) -> SyncGroupRequest:
        assignments = []
        if joined.leader == joined.member_id:
            owners = [each.member_id for each in joined.members if bytes(each.metadata) == _OWNER]
            owner = (owners or [joined.member_id])[0]
            assignments = [
                SyncGroupRequest.SyncGroupRequestAssignment(
                    member_id=each.member_id, assignment=_OWNER if each.member_id == owner else b""
                ) for each in joined.members
            ]  # fmt: skip
        return SyncGroupRequest(
            group_id=self._group, generation_id=self._generation, member_id=self._member, group_instance_id=None,
            protocol_type=PROTOCOL_TYPE, protocol_name=_PROTOCOL, assignments=assignments,
        )  # fmt: skip

    def _leave(self) -> None:
        # Without a line the coordinator is away: a stop doesn't wait for it.
        if self._member and self.error is None and self._line is not None:
            me = LeaveGroupRequest.MemberIdentity(member_id=self._member, group_instance_id=None, reason=None)
            with suppress(SourceError, _LostError):  # the session's end does the same, later
                self._ask(LeaveGroupRequest(group_id=self._group, member_id=self._member, members=[me]))
        self._member = ""
        self._drop_line()

    # -- asking -----------------------------------------------------------------------------------------------------

    def _ask(self, request: Any, *, wait_s: float = 0.0) -> Any:
        """On a line of our own: the coordinator keeps an answer back until every member has joined."""
        if self._line is None:
            self._line = self._cluster.own_line(self._cluster.coordinator_of("group", self._group))
        return self._line.call(request, timeout_s=_ANSWER_S + wait_s)

    def _check(self, errno: int) -> None:
        if errno in _LOST:
            raise _LostError
        if errno:
            self._cluster.forget_coordinator("group", self._group)
            raise BrokerError(errno, f"the group {self._group}")

    def _drop_line(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None
        self._cluster.forget_coordinator("group", self._group)


def _fenced(group: str) -> SourceError:
    return SourceError(
        "kafka.fenced", f"another capture owns the group {group} now",
        "nothing to do where that one runs: this one stands by; two that take turns share a slow network or host",
    )  # fmt: skip


def _owned(group: str) -> SourceError:
    return SourceError(
        "kafka.owned", f"another capture owns the group {group}", "stop it first, or let this one stand by"
    )
