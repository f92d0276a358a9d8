"""Names of people that tell nobody who they are.

What belongs here: the keyed digest of a personal identifier. What stays out: where that key lies.
"""

import hashlib
import hmac
import re
from typing import Final

from dr_assets.estate.errors import PolicyError

ID_KEY_BYTES: Final = 32
_LABEL: Final = b"dr_assets v1 subject id\0"
_SUBJECT_ID: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)


class SubjectIds:
    """Turns identifiers of an estate's people into subject ids; without the key nobody can tell whose one is."""

    def __init__(self, id_key: bytes) -> None:
        if len(id_key) != ID_KEY_BYTES:
            raise ValueError(f"a key for subject ids has {ID_KEY_BYTES} bytes")
        self._key = id_key

    def __repr__(self) -> str:
        return "SubjectIds()"

    def of(self, personal_id: str) -> str:
        """First 16 bytes of the labelled HMAC-SHA256 of the identifier (UTF-8, as given), in hex."""
        return hmac.new(self._key, _LABEL + personal_id.encode("utf-8"), hashlib.sha256).hexdigest()[:32]


def require_subject_id(text: str) -> str:
    """`text` if it is a subject id; raises PolicyError `subjects.bad_id`, which does not repeat what was given."""
    if _SUBJECT_ID.fullmatch(text) is None:
        raise PolicyError(
            "subjects.bad_id",
            "a subject id is 32 lower-case hex digits; what was given is none, and is not repeated here",
            "`dr-assets keys subjects id` reads a personal identifier from standard input and prints its subject id",
        )
    return text
