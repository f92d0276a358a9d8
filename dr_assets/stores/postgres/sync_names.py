"""`synchronous_standby_names`: reading it, judging it, adding and removing one name.

What belongs here: the setting's grammar and what it promises to whom. What stays out: asking and altering a server
(sync_standby.py). The grammar is the manual's: `[FIRST] n (a, b)`, `ANY n (a, b)`, or a plain list, which is FIRST 1.

A standby counts for sure only where all of those named must confirm: with `FIRST 1 (a, b)` or `ANY 1 (a, b)` the other
one stands in silently, and what was promised is no longer in the vault.
"""

import re
from dataclasses import dataclass, replace
from typing import Literal

_TOKEN = re.compile(r'\s*(?:"((?:[^"]|"")+)"|([A-Za-z_\x80-\uffff][\w$\x80-\uffff]*)|(\d+)|([*(),]))')
ANYBODY = "*"


@dataclass(frozen=True, slots=True)
class SyncNames:
    """The setting, parsed. `count` standbys of `names` must confirm a commit; none when the list is empty."""

    method: Literal["FIRST", "ANY"] = "FIRST"
    count: int = 0
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.names:
            return ""
        listed = ", ".join(name if name == ANYBODY else '"' + name.replace('"', '""') + '"' for name in self.names)
        return f"{self.method} {self.count} ({listed})"

    def has(self, name: str) -> bool:
        """Whether `name` is listed; the server compares without regard to case."""
        return name.lower() in {listed.lower() for listed in self.names}

    @property
    def has_anybody(self) -> bool:
        """Whether `*` lets every standby count, also one that keeps nothing."""
        return ANYBODY in self.names

    @property
    def requires_all(self) -> bool:
        """Whether nobody stands in for anybody: each of the names must confirm."""
        return not self.has_anybody and self.count >= len(self.names)

    def with_name(self, name: str) -> "SyncNames":
        """As before, and `name` must confirm as well. Only where all are required already."""
        if self.has(name):
            return self
        return replace(self, count=len(self.names) + 1, names=(*self.names, name))

    def without_name(self, name: str) -> "SyncNames":
        """As before without `name`; those left must confirm as before, as far as there are as many."""
        names = tuple(listed for listed in self.names if listed.lower() != name.lower())
        if len(names) == len(self.names):
            return self
        return SyncNames(self.method, max(1, self.count - 1), names) if names else SyncNames()


def parse_sync_names(text: str) -> SyncNames:
    """The setting as the server shows it. ValueError for what a server would not have accepted."""
    tokens = _tokens(text)
    if not tokens:
        return SyncNames()
    method: Literal["FIRST", "ANY"] = "FIRST"
    count = 1
    if (
        len(tokens) > 1
        and tokens[0][0] == "word"
        and tokens[0][1].upper() in ("FIRST", "ANY")
        and tokens[1][0] == "int"
    ):
        method = "ANY" if tokens[0][1].upper() == "ANY" else "FIRST"
        tokens = tokens[1:]
    if len(tokens) > 1 and tokens[0][0] == "int" and tokens[1] == ("sign", "("):
        if tokens[-1] != ("sign", ")"):
            raise ValueError(text)
        count, tokens = int(tokens[0][1]), tokens[2:-1]
    return SyncNames(method, count, _listed(tokens, text))


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens, position = [], 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError(text)
        quoted, word, number, sign = match.groups()
        if quoted is not None:
            tokens.append(("name", quoted.replace('""', '"')))
        elif word is not None:
            tokens.append(("word", word))
        elif number is not None:
            tokens.append(("int", number))
        else:
            tokens.append(("name", sign) if sign == ANYBODY else ("sign", sign))
        position = match.end()
    return tokens


def _listed(tokens: list[tuple[str, str]], text: str) -> tuple[str, ...]:
    names = tokens[::2]
    if any(kind == "sign" for kind, _ in names) or any(token != ("sign", ",") for token in tokens[1::2]):
        raise ValueError(text)
    if not names or len(tokens) % 2 == 0:
        raise ValueError(text)
    return tuple(name for _, name in names)
