"""Sealing pieces of one chain in parallel, though each header names the one before it.

What belongs here: what a piece's thread does on its own (joining, hashing), and what it waits for (the digest of the
header before). What stays out: threads (putters.py, spooling.py), the cut (pieces.py), the header's fields.

A catch-up is bound by the one thread that receives. So that thread only says in which order pieces follow each other;
whoever seals a piece hashes it first, and then takes its turn: a header costs microseconds, its plaintext's digest a
thousand times that. Pieces are sealed in the order they were linked or at once, so nobody waits for one not begun.
"""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from dr_assets.vault.format.segment import Prepared, Sealed

# (plaintext, its SHA-256 in hex, digest of the header before or None) -> the fixed header
Prepare = Callable[[bytes, str, str | None], Prepared]


class Body:
    """A piece's bytes as they came, put together by whoever needs them first. For one thread at a time."""

    def __init__(self, parts: Sequence[memoryview | bytes]) -> None:
        self._parts = parts

    def let_go(self) -> None:
        """Free the memory: the bytes are sealed, and nobody asks for them again."""
        self._parts = ()

    def whole(self) -> bytes:
        """All of it; what it came in is let go, so that nothing lies in memory twice for long. Not after `let_go`."""
        assert self._parts, "let go already"  # noqa: S101 - a bug of ours if it fails
        whole = b"".join(self._parts)
        self._parts = (whole,)
        return whole


class Linked:
    """A piece with its place in the chain: sealed when it is its turn, again with the same bytes if need be."""

    def __init__(self, body: Body, prepare: Prepare, before: "Future[str | None]") -> None:
        self._body = body
        self._prepare = prepare
        self._before = before
        self._sealed: Sealed | None = None
        self.digest: Future[str | None] = Future()

    def seal(self) -> Sealed:
        """Hash, wait for the header before, fix this one, seal; the same bytes when it is asked again.

        The plaintext is let go once it is sealed: WAL shrinks to a small part, and a put lasts much longer than a seal.
        One thread at a time. Raises what the piece before, or making this header, raised (VaultError, PolicyError):
        then all behind it do.
        """
        if self._sealed is None:
            try:
                prepared = self._fixed()
            except BaseException as error:  # whatever it is: those behind must not wait for ever
                if not self.digest.done():  # tried again, it fails again
                    self.digest.set_exception(error)
                raise
            self.digest.set_result(prepared.header.digest)
            self._sealed = prepared.seal()
            self._body.let_go()
        return self._sealed

    def _fixed(self) -> Prepared:
        plaintext = self._body.whole()
        sha256 = hashlib.sha256(plaintext).hexdigest()
        return self._prepare(plaintext, sha256, self._before.result())


class Chain:
    """The order in which pieces follow each other from `previous`, the digest of the last stored header (or None)."""

    def __init__(self, previous: str | None) -> None:
        self._last: Future[str | None] = Future()
        self._last.set_result(previous)

    def link(self, body: Body, prepare: Prepare) -> Linked:
        """The next piece."""
        linked = Linked(body, prepare, self._last)
        self._last = linked.digest
        return linked
