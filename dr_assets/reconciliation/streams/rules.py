"""How an application's records say what they are: the idempotency key, the message key, dead letters.

What belongs here: those declarations, applied to one record. What stays out: where records come from (records.py).
"""

import json
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from dr_assets.estate.errors import PolicyError
from dr_assets.stores.kafka.batches import Record

DEAD_LETTERS: Final = ("*.dlq", "*.dlt", "*-dlq", "*-dlt", "*.dead-letter*", "*-dead-letter*")


@dataclass(frozen=True, slots=True)
class StreamRules:
    """Where a record's idempotency key is: in a header, else in the value's JSON (`a.b` is b of a), else its key.

    `dead_letters` are names of topics, with `*`. `is_key` says that the record's own key is the idempotency key.
    `with_payload` keeps the values themselves, as text, in a column `payload`: for who has to look into them.
    """

    header: str | None = "idempotency-key"
    json_path: str | None = None
    is_key: bool = False
    dead_letters: tuple[str, ...] = DEAD_LETTERS
    with_payload: bool = False

    def __post_init__(self) -> None:
        if sum((self.header is not None, self.json_path is not None, self.is_key)) != 1:
            raise PolicyError(
                "streams.key_rule",
                "an idempotency key is in one place: a header, a path in the value's JSON, or the record's key",
                "declare exactly one of the three",
            )

    def key_of(self, record: Record) -> str | None:
        """The idempotency key; None where the record has none."""
        if self.header is not None:
            wanted = self.header.encode()
            for name, value in record.headers:
                if name == wanted and value is not None:
                    return value.decode(errors="replace")
            return None
        if self.is_key:
            return text_of(record.key)
        return _at(record.value, (self.json_path or "").split("."))

    def is_dead_letter(self, topic: str) -> bool:
        """Whether what lies in this topic was given up by a consumer."""
        return any(fnmatchcase(topic, pattern) for pattern in self.dead_letters)


def text_of(data: bytes | None) -> str | None:
    """Bytes as text; what is no UTF-8 is shown with replacements."""
    return None if data is None else data.decode(errors="replace")


def _at(value: bytes | None, path: list[str]) -> str | None:
    if value is None:
        return None
    try:
        found: Any = json.loads(value)
    except ValueError:
        return None
    for name in path:
        if not isinstance(found, dict):
            return None
        found = found.get(name)
    return None if found is None or isinstance(found, dict | list) else str(found)
