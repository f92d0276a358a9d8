"""The independent reader opens a whole vault from a folder: objects, keys, chains, fulls, facts, and the log."""

import subprocess
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature

from dr_assets.stores.postgres.full_cut import FullDraft, Limits
from dr_assets.vault.facts import record_fact
from dr_assets.vault.format import canonical
from dr_assets.vault.format.segment import Opened
from dr_assets.vault.full_segment import FULL, FULL_LIST, FullList
from dr_assets.vault.keys.file_provider import FileKeyProvider
from dr_assets.vault.log.sequencer import Sequencer
from dr_assets.vault.signing import Signer, Trust
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.verify import verify
from dr_assets_tests.faults.vault.sample import StillClock, put
from dr_assets_tests.vectors.vault import reader

MANY = 300  # more leaves than one tile holds


@dataclass
class Kept:
    """A vault as files, and what opens it."""

    folder: Path
    keys: Path
    trust: Path
    pieces: list[str]
    full: str
    manifest: str
    part: str
    begin: int

    def opened(self) -> reader.Folder:
        """By the reader."""
        keks = [bytes.fromhex(path.read_text().strip()) for path in self.keys.glob("kek-*.hex")]
        public = [key.hex() for key in Trust.load(self.trust).public_keys.values()]
        return reader.Folder(self.folder, keks, public)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """One of everything, rotated once, sequenced twice, in order by our own verification, then written to a folder."""
    place, clock, signer = tmp_path_factory.mktemp("kept"), StillClock(), Signer.generate()
    FileKeyProvider.create(place / "keys")
    store = MemoryStore(clock)
    vault = throwaway_vault(store=store, provider=FileKeyProvider(place / "keys"), signer=signer, clock=clock)
    begin = position = 0x16000028
    draft, previous, pieces = FullDraft(Limits()), None, []
    for number in range(5):
        text = bytes([number]) * (1000 + number)
        piece = put(vault, "wal", "wal", position, position + len(text), text, previous=previous)
        fork = put(vault, "wal", "wal", position, position + len(text), b"f" * len(text), previous=previous, epoch=0)
        assert fork.key != piece.key
        draft.add(piece.key, Opened(piece.header, (text,)))
        position, previous, pieces = piece.key.last, piece.header.digest, [*pieces, str(piece.key)]
    body, extra, covered = bytes(draft.data), draft.extra(), tuple(draft.covered)
    full = put(vault, FULL, "wal", begin, position, body, extra=extra)
    listed = canonical.encode(FullList(full.key, full.header.digest, covered).to_json())
    put(vault, FULL_LIST, "manifest", begin, position, listed)
    part = put(vault, "base-one", "part", 0, 1, b"data" * 999)
    parts = [{"key": str(part.key), "sha256": part.sha256, "size_bytes": len(part.data)}]
    manifest = put(vault, "base", "manifest", begin, begin + 1, canonical.encode({"parts": parts}))
    clock.at += timedelta(minutes=2)
    Sequencer(vault).run()
    for number in range(MANY):
        record_fact(vault, "ledger", "drill", {"number": number})
    clock.at += timedelta(minutes=2)
    Sequencer(vault).run()
    assert verify(vault).ok
    for name, rows in store.rows.items():
        path = place / "vault" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rows[0].data or b"")
    Trust.of(signer).save(place / "trust.json", name="writer")
    return Kept(
        place / "vault", place / "keys", place / "trust.json", pieces, str(full.key), str(manifest.key), str(part.key),
        begin,
    )  # fmt: skip


def test_the_whole_vault_opens_from_the_page_alone(kept: Kept) -> None:
    """Chain, full segment, base backup, facts, and every leaf of the log under the newest checkpoint's root."""
    opened = kept.opened()
    place = kept.pieces[0].rpartition("/")[0] + "/"
    assert opened.chain("ledger", place, kept.begin) == kept.pieces, "forks lose"
    assert opened.full(kept.full) == kept.pieces
    assert opened.parts(kept.manifest) == [kept.part]
    assert [fact["number"] for fact in opened.facts("ledger", "drill")] == list(range(MANY))
    origin, size, _ = opened.checkpoint("casino")
    assert (origin, size) == ("dr-assets/casino/throwaway", len(opened.leaves("casino")))
    assert size > MANY
    subjects = {leaf["subject"][0]["name"]: leaf for leaf in opened.leaves("casino")}
    assert {kept.full, kept.manifest} <= subjects.keys() or kept.manifest in subjects
    assert subjects[kept.manifest]["subject"][0]["digest"]["sha256"][:32] == kept.manifest[-32:]


def test_it_runs_by_itself(kept: Kept) -> None:
    """With nothing of this project on its path."""
    script = Path(reader.__file__)
    ran = subprocess.run(
        [sys.executable, "-I", str(script), str(kept.folder), str(kept.keys), str(kept.trust)],
        capture_output=True, text=True, check=True, cwd="/",
    )  # fmt: skip
    assert ran.stdout.startswith("casino: ")
    assert ran.stdout.endswith("leaves\n")


@pytest.mark.parametrize(
    "where", ["wal", "full-list", "base", "keys", "log/checkpoint", "log/tile/0", "log/tile/entries", "log/tile/1"]
)
def test_whatever_is_altered_is_refused(kept: Kept, where: str) -> None:
    """A bit anywhere: the reader opens nothing of it quietly."""
    wanted = [path for path in sorted(kept.folder.rglob("*")) if path.is_file() and f"/{where}/" in str(path)]
    path = wanted[-1]
    before = path.read_bytes()
    at = before.find(b"\n") + 5 if where == "log/checkpoint" else len(before) // 2
    try:
        path.write_bytes(before[:at] + bytes([before[at] ^ 1]) + before[at + 1 :])
        with pytest.raises((reader.RefusedError, InvalidSignature, ValueError, KeyError, StopIteration)):  # noqa: PT012 - any step may refuse
            opened = kept.opened()
            opened.full(kept.full)
            opened.leaves("casino")
    finally:
        path.write_bytes(before)
