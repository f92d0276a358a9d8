"""A whole verification: list, examine in parallel with bounded memory, then relate.

What belongs here: the order of the steps. What stays out: the judgements.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from typing import Final

from dr_assets.estate.errors import VaultError
from dr_assets.vault.format.keys import KEYS, ObjectKey, prefix_of
from dr_assets.vault.storage.versions import Name
from dr_assets.vault.vault import Vault
from dr_assets.vault.verify.chains import judge_chains
from dr_assets.vault.verify.examine import Examined, examine
from dr_assets.vault.verify.relations import Whole, judge_relations
from dr_assets.vault.verify.report import Finding, VerifyReport
from dr_assets.vault.witness import Witness

WORKERS: Final = 4  # each holds one object; two cores are busy with four since half of the time is waiting
Progress = Callable[[int, int], None]


def verify(
    vault: Vault,
    dataset: str | None = None,
    *,
    as_of: datetime | None = None,
    witness: Witness | None = None,
    progress: Progress | None = None,
    workers: int = WORKERS,
) -> VerifyReport:
    """Re-read every object of the estate (or of one dataset) and everything that objects say of each other.

    `as_of` judges the vault as it was then by the store's clock. What `witness` knows must be there. `progress` is
    called with the number of names examined and their total. Raises VaultError when the store can't be read, and
    `vault.wrong_key` when no key at all can be unwrapped: then nothing can be said about anything.
    """
    begin_s = time.monotonic()
    vault = vault.anew()
    now = as_of or vault.clock()
    names = list(vault.names(prefix_of(vault.estate, dataset), as_of=as_of))
    _require_keys(vault, names)
    examined = list(_examined(vault, names, now, progress, workers))
    whole = Whole(examined, vault.locks, now)
    findings = [finding for item in examined for finding in item.findings]
    findings += judge_relations(whole)
    findings += judge_chains(whole)
    findings += _witnessed(vault, whole, witness, dataset)
    ours = [item for item in examined if ObjectKey.parse(item.name) is not None]
    return VerifyReport(
        findings=tuple(sorted(set(findings), key=lambda finding: (finding.severity, finding))),
        objects_total=len(ours),
        objects_locked=sum(item.locked for item in ours),
        size_bytes=sum(item.size_bytes for item in ours),
        duration_s=time.monotonic() - begin_s,
        witness=Witness.of(item.obj.key for item in examined if item.obj is not None),
    )


def _require_keys(vault: Vault, names: Iterable[Name]) -> None:
    """Tell a wrong keys folder once, not object by object."""
    refusal: VaultError | None = None
    for name in names:
        if name.key is None or name.key.stream != KEYS or not name.versions:
            continue
        try:
            vault.keys.by_id(name.key.dataset, name.key.system_id)
        except VaultError as error:
            if error.code != "vault.wrong_key":
                continue
            refusal = error
        else:
            return
    if refusal is not None:
        raise refusal


def _examined(
    vault: Vault, names: list[Name], now: datetime, progress: Progress | None, workers: int
) -> Iterator[Examined]:
    """In order; only a few names ahead are in memory."""
    with ThreadPoolExecutor(workers, thread_name_prefix="verify") as pool:
        ahead: deque[Future[Examined]] = deque()
        waiting = iter(names)
        for done in range(len(names)):
            while len(ahead) < 2 * workers and (name := next(waiting, None)) is not None:
                ahead.append(pool.submit(examine, vault, name, now))
            yield ahead.popleft().result()
            if progress is not None:
                progress(done + 1, len(names))


def _witnessed(vault: Vault, whole: Whole, witness: Witness | None, dataset: str | None) -> Iterator[Finding]:
    names = whole.names()
    for key in witness.newest.values() if witness else ():
        if key.estate == vault.estate and dataset in {None, key.dataset} and str(key) not in names:
            yield Finding("missing", str(key), None, "was witnessed in this vault: the vault is older than the witness")
