"""Proofs for others: a file that shows, with no vault and no network, that the log vouches for an object.

What belongs here: C2SP tlog-proof, making and checking. What stays out: the checkpoint's outside proofs (offline.py).

The `extra` line holds what the leaf's hash is over, and, where the leaf speaks of many pieces, all their names.
"""

import base64
import re
from dataclasses import dataclass
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.vault.format import canonical
from dr_assets.vault.inventory import digest_of
from dr_assets.vault.log.checkpoint import Checkpoint, malformed, verify_checkpoint
from dr_assets.vault.log.merkle import bad_proof, leaf_hash, verify_inclusion
from dr_assets.vault.log.note import strict_base64
from dr_assets.vault.log.reader import LogReader, Vouched
from dr_assets.vault.log.statement import NAMES, Statement, parse_leaf
from dr_assets.vault.signing import Trust

HEAD: Final = "c2sp.org/tlog-proof@v1"
PROOF_LIMIT_BYTES: Final = 64 << 20
_INDEX: Final = re.compile(r"index (0|[1-9][0-9]{0,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Proven:
    """What a proof shows: leaf `index` of the tree of `checkpoint` says this, of the objects called `names`."""

    checkpoint: Checkpoint
    index: int
    statement: Statement
    names: tuple[str, ...]


def make_proof(reader: LogReader, vouched: Vouched) -> str:
    """The text of a `.tlog-proof` file for one leaf."""
    extra: dict[str, object] = {"leaf": vouched.leaf.decode("ascii")}
    if vouched.statement.kind == NAMES:
        extra["names"] = list(vouched.names)
    steps = "".join(f"{_base64(step)}\n" for step in reader.inclusion(vouched.index))
    head = f"{HEAD}\nextra {_base64(canonical.encode(extra))}\nindex {vouched.index}\n"
    return head + steps + "\n" + reader.note.decode()


def check_proof(text: str, trust: Trust) -> Proven:
    """What a proof shows, everything in it verified by the trusted signers' keys alone.

    Raises VaultError `log.malformed`, `log.bad_proof`, `log.bad_leaf`, and those of notes.
    """
    above, _, note = text.partition("\n\n")
    lines = above.split("\n")
    if len(text) > PROOF_LIMIT_BYTES or len(lines) < 3 or lines[0] != HEAD:  # noqa: PLR2004 - head, extra, index
        raise malformed("no proof of an object in a log")
    checkpoint = verify_checkpoint(note.encode(), trust).checkpoint
    extra, found = strict_base64(lines[1].removeprefix("extra ")), _INDEX.fullmatch(lines[2])
    steps = [strict_base64(line) for line in lines[3:]]
    if extra is None or found is None:
        raise malformed("a proof without the leaf that it is of")
    body = canonical.decode(extra, limit_bytes=PROOF_LIMIT_BYTES, what="a proof's extra line")
    leaf, listed = body.get("leaf"), body.get("names")
    if not isinstance(leaf, str):
        raise malformed("a proof without the leaf that it is of")
    hashes = [step for step in steps if step is not None and len(step) == len(checkpoint.root)]
    if len(hashes) != len(steps):
        raise malformed("a proof with a line that is no hash")
    index = int(found[1])
    verify_inclusion(leaf_hash(leaf.encode()), index, checkpoint.size, checkpoint.root, hashes)
    statement = parse_leaf(leaf.encode(), trust)
    return Proven(checkpoint, index, statement, _names(statement, listed))


def _names(statement: Statement, listed: object) -> tuple[str, ...]:
    if statement.kind != NAMES:
        return (statement.name,)
    names = tuple(name for name in listed if isinstance(name, str)) if isinstance(listed, list) else ()
    if digest_of(names) != statement.sha256:
        raise bad_proof("the names in the proof are not those that the leaf speaks of")
    return names


def require_named(proven: Proven, name: str) -> None:
    """Raise VaultError `log.not_vouched` unless the proof is of this object."""
    if name not in proven.names:
        raise not_vouched(name, proven.checkpoint)


def not_vouched(name: str, checkpoint: Checkpoint) -> VaultError:
    """The error for an object that no leaf speaks of."""
    return VaultError(
        "log.not_vouched",
        f"the log of {checkpoint.size} leaves does not vouch for {name}",
        "it may be newer than the log: `dr-assets log sequence`, then ask again",
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
