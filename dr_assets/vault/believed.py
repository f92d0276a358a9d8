"""Reading what may be rubbish under a fitting name.

What belongs here: the one rule for passing over what can't be believed. What stays out: what is read, and what
follows from not believing it.
"""

from collections.abc import Callable
from typing import TypeVar

from dr_assets.estate.errors import VaultError
from dr_assets.vault.storage import STORE_AWAY

Asked = TypeVar("Asked")
Read = TypeVar("Read")


def believed(read: Callable[[Asked], Read], asked: Asked) -> Read | None:
    """What `read` makes of `asked`; None where it is damaged, a stranger's or gone.

    Raises VaultError when the store itself can't be read: that says nothing of the object.
    """
    try:
        return read(asked)
    except VaultError as error:
        if error.code in STORE_AWAY:
            raise
        return None
