"""What a dataset's `reconcile:` names, opened as the relations that the checks read.

What belongs here: from the declaration to `Externals`. What stays out: reading files (providers/), topics (streams/).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from dr_assets.estate.errors import PolicyError
from dr_assets.estate.reconcile import Reconcile
from dr_assets.reconciliation.externals import Source
from dr_assets.reconciliation.providers.open import BANK, Feed, bank_lines, provider_lines, told_stream
from dr_assets.reconciliation.streams.contacts import CONTACTS, contact_batches
from dr_assets.reconciliation.streams.gather import gather_vault
from dr_assets.reconciliation.streams.rules import StreamRules
from dr_assets.stores.kafka.restore_plan import Cut
from dr_assets.vault.vault import Vault


@contextmanager
def outsiders(
    asked: Reconcile | None,
    env: Mapping[str, str],
    workdir: Path | None,
    *,
    vault_of: Callable[[str], Vault] | None = None,
    cut: Cut | None = None,
) -> Iterator[dict[str, Source]]:
    """The relations that are declared, for as long as the block lasts: streams are read once, inside it.

    `vault_of` gives the vault that holds a dataset's topics; without it they are left out. `cut` is where reading them
    ends; what they hold lies below `workdir` meanwhile. Raises PolicyError for a variable that is not set, SourceError
    for files that can't be read.
    """
    found: dict[str, Source] = {}
    if asked is None:
        yield found
        return
    feeds = [Feed(one.name, one.format, Path(_value(env, one.dir_env)), one.mapping) for one in asked.providers]
    with ExitStack() as opened:
        if any(feed.format != BANK for feed in feeds):
            found["provider_lines"] = opened.enter_context(provider_lines(feeds))
        if any(feed.format == BANK for feed in feeds):
            found["bank_lines"] = opened.enter_context(bank_lines(feeds))
        if asked.topics is not None and vault_of is not None:
            folder = Path(opened.enter_context(TemporaryDirectory(prefix="outsiders-", dir=workdir)))
            rules = StreamRules(header=asked.idempotency_header)
            found |= gather_vault(vault_of(asked.topics), asked.topics, folder, rules, cut=cut).externals
        if asked.contacts_env is not None:
            batches = contact_batches(Path(_value(env, asked.contacts_env)))
            found["contacts"] = opened.enter_context(told_stream(CONTACTS, batches))
        yield found


def _value(env: Mapping[str, str], name: str) -> str:
    value = env.get(name, "")
    if not value:
        raise PolicyError(
            "policy.env_unset", f"{name} is not set", "set it to the folder or file that `reconcile:` names it for"
        )
    return value
