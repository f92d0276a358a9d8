"""What a broker refuses, as our errors.

What belongs here: error codes of Kafka's protocol, by number and by name, and what a person can do about them. What
stays out: deciding to try again (wire.py).
"""

from typing import Final

from kafka.errors import for_code

from dr_assets.estate.errors import SourceError

# The leader is elsewhere, or not elected yet: ask for the metadata and try again.
MOVED: Final = frozenset({3, 5, 6, 8, 9, 74, 75, 76, 100, 103})
# The coordinator is elsewhere, or still loading.
COORDINATOR_MOVED: Final = frozenset({14, 15, 16})
TRANSIENT: Final = MOVED | COORDINATOR_MOVED | frozenset({2, 7, 13, 19, 20, 41, 51, 56, 89})

OFFSET_OUT_OF_RANGE: Final = 1
UNKNOWN_TOPIC: Final = 3
UNKNOWN_TOPIC_ID: Final = 100
REBALANCE_IN_PROGRESS: Final = 27
ILLEGAL_GENERATION: Final = 22
UNKNOWN_MEMBER_ID: Final = 25
FENCED_INSTANCE_ID: Final = 82
MEMBER_ID_REQUIRED: Final = 79
SECURITY_DISABLED: Final = 54
_DENIED: Final = frozenset({29, 30, 31, 53, 65})


def name_of(errno: int) -> str:
    """The protocol's own name of an error code: `NOT_LEADER_OR_FOLLOWER`."""
    return str(getattr(for_code(errno), "message", "") or f"ERROR_{errno}")


class BrokerError(SourceError):
    """A broker answered with an error code: `errno` and `error` are Kafka's own number and name for it."""

    def __init__(self, errno: int, asked: str) -> None:
        self.errno = errno
        self.error = name_of(errno)
        code = "kafka.denied" if errno in _DENIED else "kafka.refused"
        hint = (
            "the user of the dataset lacks a right (ACL) there; docs/kafka.md lists those that are needed"
            if errno in _DENIED
            else "look the name up in Kafka's protocol guide; a broker that is starting gives such answers for a while"
        )
        super().__init__(code, f"{asked}: {self.error}", hint)

    @property
    def is_transient(self) -> bool:
        """Whether another try, perhaps at another broker, may go well."""
        return self.errno in TRANSIENT
