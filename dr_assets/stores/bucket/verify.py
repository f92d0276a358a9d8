"""What is stored of a bucket, looked at from its newest inventory: every row lies in a part, and opens.

What belongs here: that walk. What stays out: signatures, locks and digests of the sealed objects, which `vault verify`
judges for every kind of store alike.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.stores.bucket.manifest import Tally
from dr_assets.stores.bucket.opening import Documents, cut
from dr_assets.stores.bucket.picked import DONE, ERASED, LEFT_OUT, WAITS, Pick, Picked
from dr_assets.stores.bucket.runs import chain_to, newest_run, rows_of
from dr_assets.stores.bucket.site import Site
from dr_assets.vault.format.canonical import Json
from dr_assets.vault.format.keys import ObjectKey
from dr_assets.vault.storage import STORE_AWAY

_FOREVER_US = (1 << 62) - 1
_TOLD = 100


@dataclass(slots=True)
class Verified:
    """What was found. `rows` are of the inventory; `erased` of them have no key any more, which is no damage.

    `troubles` name parts and digests, never documents.
    """

    run: str
    is_counted: bool
    rows: Tally
    sound: Tally = field(default_factory=Tally)
    erased: Tally = field(default_factory=Tally)
    parts: int = 0
    troubles: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is missing, damaged or miscounted."""
        return self.is_counted and not self.troubles

    def to_json(self) -> dict[str, Json]:
        """For machines."""
        return {
            "run": self.run,
            "counts_agree": self.is_counted,
            "rows": self.rows.to_json(),
            "sound": self.sound.to_json(),
            "erased": self.erased.to_json(),
            "parts": self.parts,
            "troubles": list[Json](self.troubles[:_TOLD]),
        }


def verify_copy(
    site: Site, *, documents: bool = False, progress: Callable[[int, int | None], None] | None = None
) -> Verified:
    """Hold the newest inventory to its manifest and to the parts; with `documents` open each that has a key.

    Raises PolicyError `restore.no_copy`; VaultError when the store can't be read.
    """
    run = newest_run(site.vault, site.name, site.system_id)
    if run is None or run.manifest is None:
        raise PolicyError("restore.no_copy", f"nothing of {site.name} is stored", "`dr-assets bucket copy` copies it")
    with tempfile.TemporaryDirectory(prefix="dr-verify-") as folder, Picked(Path(folder) / "rows.sqlite") as picked:
        for rows in rows_of(site.vault, chain_to(site.vault, run)):
            picked.find(rows)
        picked.pick(_FOREVER_US, all_versions=True)
        held, found = run.manifest.held, picked.tally()
        withheld = picked.erase(())
        agrees = (found.versions - withheld, found.markers) == (held.versions, held.markers)
        verified = Verified(str(run.key), agrees, found)
        total = found.versions + found.markers
        documents_of = Documents(site)
        for rank in range(picked.ranks()):
            picked.end((one.ord, LEFT_OUT, "") for one in picked.without_part(rank))
            for part, picks in picked.by_part(rank):
                verified.parts += 1
                look = _open_all if documents else _look_at
                picked.end(look(site, documents_of, part, picks, verified))
                if progress is not None:
                    done = picked.tally(DONE, LEFT_OUT, ERASED)
                    progress(done.versions + done.markers, total)
        verified.sound, verified.erased = picked.tally(DONE, LEFT_OUT), picked.tally(ERASED)
        if picked.tally(WAITS) != Tally():
            verified.is_counted = False
    return verified


def _look_at(
    site: Site, documents: Documents, part: str, picks: Sequence[Pick], verified: Verified
) -> list[tuple[int, int, str]]:
    """Whether the part is there, signed, and reaches as far as its rows say."""
    del documents
    key = ObjectKey.parse(part)
    if key is None:
        verified.troubles.append(f"{part}: no name of a part")
        return [(one.ord, LEFT_OUT, "") for one in picks]
    try:
        size_bytes = site.vault.header(site.vault.find(key)).size_bytes
    except VaultError as error:
        _note(verified, error)
        return [(one.ord, LEFT_OUT, "") for one in picks]
    beyond = sum(1 for one in picks if one.row.head and one.row.head.offset + one.row.head.length > size_bytes)
    if beyond:
        verified.troubles.append(f"{part}: {beyond} rows lie beyond its {size_bytes} bytes")
    return [(one.ord, DONE, "") for one in picks]


def _open_all(
    site: Site, documents: Documents, part: str, picks: Sequence[Pick], verified: Verified
) -> list[tuple[int, int, str]]:
    """Every document that a key is left of."""
    del site
    try:
        data = documents.part(part)
    except VaultError as error:
        _note(verified, error)
        return [(one.ord, LEFT_OUT, "") for one in picks]
    return [(one.ord, _opened(documents, data, one, verified), "") for one in picks]


def _opened(documents: Documents, data: bytes, pick: Pick, verified: Verified) -> int:
    try:
        document = documents.head(pick.row, data)
        if document is None:
            cut(data, pick.row.head, pick.row)
            return ERASED
        if pick.row.pieces:
            for _ in documents.pieces(document):
                pass
        elif not document.head.is_marker:
            document.whole()
    except VaultError as error:
        _note(verified, error)
        return LEFT_OUT
    return DONE


def _note(verified: Verified, error: VaultError) -> None:
    if error.code in STORE_AWAY:
        raise error
    verified.troubles.append(f"{error.code}: {error.found}")
