"""`python -m benchmarks.vault`: how fast a vault verifies, and its log appends and proves; `results/vault.json`.

What belongs here: filling a vault, verifying all of it, rows. What stays out: the log's figures (vault_log.py).

The vault is what a Postgres dataset leaves: half of the plaintext is a base backup's parts, a quarter micro-segments of
1 MiB, a quarter the full segments of the same WAL. Verified on SeaweedFS, over loopback on the same cores, and on a
store in this process's memory, so that the store's own cost is seen apart.
"""

import argparse
import hashlib
import importlib
import importlib.util
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import zstandard

from benchmarks.postgres.rows import Floor, Row, merged, row
from dr_assets.engines.programs import find_programs
from dr_assets.engines.seaweed import SeaweedRegion
from dr_assets.stores.postgres.full_cut import FullDraft, Limits
from dr_assets.stores.postgres.host import keep_freed_memory
from dr_assets.vault.facts import record_fact
from dr_assets.vault.format import canonical
from dr_assets.vault.format.keys import BASE, WAL, part_stream
from dr_assets.vault.format.segment import Opened, Sealed
from dr_assets.vault.full_segment import FULL, FULL_LIMIT_BYTES, FULL_LIST, FullList
from dr_assets.vault.keys.memory_provider import MemoryKeyProvider
from dr_assets.vault.signing import Signer
from dr_assets.vault.storage import ObjectStore
from dr_assets.vault.storage.memory import MemoryStore
from dr_assets.vault.storage.s3 import S3Store, make_client
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify import Depth, verify

MIB: Final = 1 << 20
LEAVES: Final = 1_000_000
VERIFY_FLOOR: Final = Floor("ours", at_least=400.0)
MEMORY_FLOOR: Final = Floor("ours", at_most=512.0)
BUCKET: Final = "verify"
_RESULTS: Final = Path(__file__).parent / "results" / "vault.json"
_SEED: Final = hashlib.sha256(b"benchmarks: vault").digest()


def rows_like_a_ledgers(size_bytes: int) -> bytes:
    """Text as a table's pages hold it: numbers that compress, and a hash a row that doesn't."""
    made, number, length = [], 0, 0
    while length < size_bytes:
        text = f"{number}\t{number % 997}\t{number * 7919 % 100000}\t{hashlib.md5(str(number).encode()).hexdigest()}\n"  # noqa: S324 - filler
        made.append(text)
        length += len(text)
        number += 1
    return "".join(made).encode()[:size_bytes]


def open_one(store: ObjectStore) -> Vault:
    """The benchmark's vault; the same keys in every process."""
    return throwaway_vault(store=store, provider=MemoryKeyProvider(_SEED), signer=Signer.from_seed(_SEED))


def fill(vault: Vault, size_bytes: int) -> float:
    """Seal and store so much plaintext; how many times zstd-1 shrinks it."""
    pool = rows_like_a_ledgers(FULL_LIMIT_BYTES)
    parts = []
    for number in range(max(1, size_bytes // 2 // FULL_LIMIT_BYTES)):
        at = number * 7919 * 4096 % len(pool)
        part = _put(vault, part_stream("bench"), "part", number, number + 1, pool[at:] + pool[:at])
        parts.append({"key": str(part.key), "sha256": part.sha256, "size_bytes": len(part.data)})
    _put(vault, BASE, "manifest", 0, 1, canonical.encode({"parts": parts}))
    previous: str | None = None
    for number in range(max(1, size_bytes // 4 // FULL_LIMIT_BYTES)):
        previous = _put_rolled(vault, pool, number * FULL_LIMIT_BYTES, previous)
    record_fact(vault, "ledger", "drill", {"why": "a fact, too"})
    return len(pool) / len(zstandard.ZstdCompressor(level=1).compress(pool))


def _put_rolled(vault: Vault, pool: bytes, begin: int, previous: str | None) -> str:
    """A full segment's worth of micro-segments, the full and its list."""
    draft = FullDraft(Limits())
    for at in range(0, FULL_LIMIT_BYTES, MIB):
        piece = pool[at : at + MIB]
        sealed = _put(vault, WAL, WAL, begin + at, begin + at + MIB, piece, previous=previous)
        previous = sealed.header.digest
        draft.add(sealed.key, Opened(sealed.header, (piece,)))
    extra, covered = draft.extra(), tuple(draft.covered)
    end = begin + FULL_LIMIT_BYTES
    full = _put(vault, FULL, WAL, begin, end, draft.take(), extra=extra)
    body = FullList(full.key, full.header.digest, covered).to_json()
    _put(vault, FULL_LIST, "manifest", begin, end, canonical.encode(body))
    assert previous is not None  # noqa: S101 - for the type checker
    return previous


def _put(
    vault: Vault, stream: str, kind: str, first: int, last: int, plaintext: bytes, *, previous: str | None = None,
    extra: dict[str, str] | None = None,
) -> Sealed:  # fmt: skip
    now = vault.clock()
    sealed = vault.prepare(
        dataset="ledger", stream=stream, kind=kind, system_id="7", timeline=1, first=first, last=last, begin_at=now,
        end_at=now, plaintext=plaintext, previous=previous, extra=extra,
    ).seal()  # fmt: skip
    vault.put(sealed, vault.locks.lock("ledger", "part" if kind != WAL else "wal", now))
    return sealed


def verified(vault: Vault, depth: Depth, runs: int) -> Iterator[tuple[float, float, int]]:
    """MB of plaintext a second, seconds, objects; of each run. The vault has to be in order."""
    for _ in range(runs):
        begin_s = time.perf_counter()
        report = verify(vault, depth=depth)
        took_s = time.perf_counter() - begin_s
        wrong = [finding for finding in report.findings if finding.kind != "bucket_changed"]
        if wrong:
            raise SystemExit(f"the benchmark's vault is not in order: {wrong[:3]}")
        yield report.plaintext_bytes / took_s / 1e6, took_s, report.objects_total


def measured(store: ObjectStore, name: str, size_gb: float, runs: int, versions: dict[str, str]) -> Iterator[Row]:
    """Rows of one store, filled already."""
    vault = open_one(store)
    keep_freed_memory()
    _forget_peak()
    full = list(verified(vault, Depth(), runs))
    note = f"{size_gb:g} GB in {full[0][2]} objects, every byte read, decrypted, digested and held to what others say"
    floor = VERIFY_FLOOR
    against = None if name == "seaweedfs" else f"(store in {name})"
    yield row(
        "verify_mb_s", "MB/s", [each[0] for each in full], against=against, floor=floor, versions=versions, note=note
    )
    if name == "seaweedfs":
        yield row("verify: peak memory", "MiB", [_peak_mib()], floor=MEMORY_FLOOR, versions=versions)
    index = list(verified(vault, Depth("index"), runs))
    yield row("verify --level index", "s", [each[1] for each in index], against=against, versions=versions)


def _filled_apart(stack: ExitStack, size_bytes: int) -> ObjectStore:
    """On SeaweedFS; filled by a process of its own, whose memory is then gone."""
    work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dr-bench-vault-", dir="/var/tmp")))
    work.chmod(0o711)
    region = stack.enter_context(SeaweedRegion(work / "weed", "bench-vault", find_programs("weed")))
    region.start()

    def store() -> S3Store:
        return S3Store(make_client(region.endpoint, region.access_key, region.secret_key), BUCKET)

    store().create_bucket("GOVERNANCE", 14)
    child = multiprocessing.get_context("fork").Process(target=lambda: fill(open_one(store()), size_bytes))
    child.start()
    child.join()
    if child.exitcode != 0:
        raise SystemExit("filling the vault failed")
    return store()


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak_mib() -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it all; exit 1 when a floor was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gb", type=float, default=2.0, help="plaintext of the vault, in 10^9 bytes")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default="verify,log")
    parser.add_argument("--stores", default="seaweedfs,memory")
    parser.add_argument("--leaves", type=int, default=LEAVES, help="of the log")
    parser.add_argument("--output", type=Path, default=_RESULTS)
    options = parser.parse_args(arguments)
    missed = [fresh.what for fresh in _all_rows(options) if fresh.verdict == "missed"]
    _tell(f"{options.output}: {'missed: ' + ', '.join(missed) if missed else 'every floor held'}")
    return 1 if missed else 0


def _all_rows(options: argparse.Namespace) -> Iterator[Row]:
    versions = {"cores": str(os.cpu_count()), "python": platform.python_version()}
    for fresh in _rows(options, versions):
        old = json.loads(options.output.read_text()) if options.output.exists() else []
        options.output.write_text(json.dumps(merged(old, [fresh]), indent=1) + "\n", encoding="utf-8")
        _tell(f"{fresh.what} {fresh.against or ''}: {fresh.ours} {fresh.unit}, runs {fresh.runs_ours} {fresh.verdict}")
        yield fresh


def _rows(options: argparse.Namespace, versions: dict[str, str]) -> Iterator[Row]:
    wanted, size_bytes = options.only.split(","), int(options.gb * 1e9)
    for name in options.stores.split(",") if "verify" in wanted else ():
        with ExitStack() as stack:
            if name == "seaweedfs":
                store = _filled_apart(stack, size_bytes)
            else:
                store = MemoryStore()
                shrinks = fill(open_one(store), size_bytes)
                yield row("data: compressibility by zstd-1", "x", [shrinks], versions=versions)
            yield from measured(store, name, options.gb, options.runs, versions)
    if "log" in wanted and importlib.util.find_spec("benchmarks.vault_log"):
        log = importlib.import_module("benchmarks.vault_log")  # only where its figures are wanted
        yield from log.measured(leaves=options.leaves, versions=versions)


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
