"""What a value of a decoded document must be, for whoever turns it into values of his own.

What belongs here: one check a shape, each a TypeError that repeats no content. What stays out: which error a document
that fails is (each reader's own), and the encoding (canonical.py).
"""

from dr_assets.vault.format.canonical import Json


def text(value: Json) -> str:
    """A text."""
    if not isinstance(value, str):
        raise TypeError(f"a text is {type(value).__name__}")
    return value


def integer(value: Json) -> int:
    """A whole number, not below zero."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"a whole number is {type(value).__name__}")
    return value


def items(value: Json) -> list[Json]:
    """A list."""
    if not isinstance(value, list):
        raise TypeError(f"a list is {type(value).__name__}")
    return value


def members(value: Json) -> dict[str, Json]:
    """An object."""
    if not isinstance(value, dict):
        raise TypeError(f"an object is {type(value).__name__}")
    return value
