"""How fast the log appends and proves, on SeaweedFS over loopback: `make bench-vault` calls `measured`.

What belongs here: making leaves, appending them through the sequencer's own steps, proving some. What stays out: the
rest of the vault's figures (vault.py), looking for what is new in a vault.
"""

import hashlib
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Final

from benchmarks.postgres.rows import Floor, Row, percentile, row
from dr_assets.engines.programs import find_programs
from dr_assets.engines.seaweed import SeaweedRegion
from dr_assets.vault.log.feed import LEAVES_LIMIT, Look, Said
from dr_assets.vault.log.merkle import leaf_hash, verify_inclusion
from dr_assets.vault.log.reader import LogReader
from dr_assets.vault.log.sequencer import Sequencer
from dr_assets.vault.log.statement import OBJECT, STORED_AT, Statement
from dr_assets.vault.storage.s3 import S3Store, make_client
from dr_assets.vault.throwaway import throwaway_vault
from dr_assets.vault.vault import Vault

BUCKET: Final = "bench-log"
PROOFS: Final = 2000
APPEND_FLOOR: Final = Floor("ours", at_least=5000)
PROOF_FLOOR: Final = Floor("ours", at_most=5)


def measured(*, leaves: int = 1_000_000, versions: Mapping[str, str] | None = None) -> Iterator[Row]:
    """Append so many leaves, then prove random ones: `log_append_per_s`, `inclusion_proof_ms`, and some rows more."""
    with ExitStack() as stack:
        vault = _vault(stack)
        per_s = append(vault, leaves)
        note = f"{leaves} leaves in batches of {LEAVES_LIMIT}: each a signed statement; tiles, entries, checkpoints put"
        yield row("log_append_per_s", "leaves/s", [per_s], floor=APPEND_FLOOR, versions=versions, note=note)
        begin_s = time.perf_counter()
        Sequencer(vault).resume()
        yield row("log: resume", "s", [time.perf_counter() - begin_s], versions=versions)
        cold, warm = proofs(vault, PROOFS)
        note = f"{PROOFS} random leaves out of tiles, the reader's cache as it fills; some verified"
        yield row(
            "inclusion_proof_ms", "ms", [statistics.median(cold)], floor=PROOF_FLOOR, versions=versions, note=note
        )
        yield row("inclusion proof: 99 of 100", "ms", [percentile(cold, 0.99)], versions=versions)
        yield row("inclusion proof: tiles in memory", "ms", [statistics.median(warm)], versions=versions)


def append(vault: Vault, leaves: int) -> float:
    """Leaves a second: making statements, signing, claiming, hashing, putting and reading back all of it."""
    sequencer = Sequencer(vault)
    head = sequencer.resume()
    begin_s = time.perf_counter()
    while head.edge.size < leaves:
        said = [_said(head.edge.size + at) for at in range(min(LEAVES_LIMIT, leaves - head.edge.size))]
        batch = sequencer.batch(head, said, look=Look(vault.clock()))
        if not sequencer.claim(batch):
            raise SystemExit("another sequencer is at work in the benchmark's bucket")
        sequencer.apply(head, batch)
    return leaves / (time.perf_counter() - begin_s)


def proofs(vault: Vault, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each proof of random leaves: with an empty cache to begin with, and the same ones again."""
    reader = LogReader.open(vault)
    if reader is None:
        raise SystemExit("there is no log")
    size, root = reader.checkpoint.size, reader.checkpoint.root
    random = Random(7)  # noqa: S311 - repeatable, not secret
    chosen = [random.randrange(size) for _ in range(count)]
    taken: tuple[list[float], list[float]] = ([], [])
    for into in taken:
        for index in chosen:
            begin_s = time.perf_counter()
            proof = reader.inclusion(index)
            into.append(1000 * (time.perf_counter() - begin_s))
            if into is taken[1] and len(into) % 100 == 0:
                verify_inclusion(leaf_hash(reader.leaf(index)), index, size, root, proof)
    return taken


def _said(number: int) -> Said:
    """The leaf of a fact, as the feed makes it; no two are alike."""
    digest = hashlib.sha256(number.to_bytes(8, "big")).hexdigest()
    name = f"casino/ledger/facts-roll_up/0/00000000/{number:016X}-{number + 1:016X}-{digest[:32]}"
    return Said(Statement(OBJECT, name, digest, {"kind": "fact", STORED_AT: "2026-03-10T12:00:00.000000Z"}))


def _vault(stack: ExitStack) -> Vault:
    work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dr-bench-log-", dir="/var/tmp")))
    work.chmod(0o711)
    region = stack.enter_context(SeaweedRegion(work / "weed", "bench-log", find_programs("weed")))
    region.start()
    store = S3Store(make_client(region.endpoint, region.access_key, region.secret_key), BUCKET)
    store.create_bucket("GOVERNANCE", 14)
    return throwaway_vault(store=store)
