"""What a database's books are held against beside themselves: the declaration `reconcile:` and what it comes to.

What belongs here: where outsiders' knowledge is found, and what of the declaration cannot be. What stays out: reading
it (reconciliation/providers, reconciliation/streams). Folders and files by the names of their variables.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from dr_assets.estate.documents import Document
from dr_assets.estate.findings import Finding

FeedFormat = Literal["stripe", "adyen", "camt053", "csv"]
_NAME: Final = r"^[a-z][a-z0-9_]{0,47}$"
_ENV: Final = r"^[A-Z][A-Z0-9_]{0,127}$"
_HEADER: Final = r"^[\x21-\x7e]{1,128}$"


@dataclass(frozen=True, slots=True)
class ProviderFeed:
    """The folder that a provider's files are put into. `mapping` says what the columns of any other CSV mean."""

    name: str
    format: FeedFormat
    dir_env: str
    mapping: Path | None = None


@dataclass(frozen=True, slots=True)
class Reconcile:
    """Whose files, topics and contacts the books are held against; what isn't named is left out, and that is said.

    `topics` is the dataset of the cluster that the outbox publishes to, `idempotency_header` the records' header that
    bears the key; `contacts_env` a file of the CRM's contacts where they lie in no table.
    """

    providers: tuple[ProviderFeed, ...] = ()
    topics: str | None = None
    contacts_env: str | None = None
    idempotency_header: str = "idempotency-key"

    def env_names(self) -> set[str]:
        """The variables that it names."""
        contacts = {self.contacts_env} if self.contacts_env else set()
        return {feed.dir_env for feed in self.providers} | contacts

    def named(self) -> list[str]:
        """Who is asked, sorted: naming fewer is promising less."""
        return sorted(
            [f"provider {feed.name}" for feed in self.providers]
            + ([f"topics {self.topics}"] if self.topics else [])
            + (["contacts"] if self.contacts_env else [])
        )


class ProviderFeedDeclaration(BaseModel):
    """One provider's files."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Annotated[str, Field(pattern=_NAME)]
    format: FeedFormat
    dir_env: Annotated[str, Field(pattern=_ENV)]
    mapping: Annotated[str, Field(min_length=1)] | None = None


class ReconcileDeclaration(BaseModel):
    """What the books are held against beside themselves: providers' files, topics, the CRM's contacts."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    providers: list[ProviderFeedDeclaration] = []
    topics: Annotated[str, Field(pattern=_NAME)] | None = None
    contacts_env: Annotated[str, Field(pattern=_ENV)] | None = None
    idempotency_header: Annotated[str, Field(pattern=_HEADER)] = "idempotency-key"


def reconcile_of(document: Document, declared: ReconcileDeclaration) -> Reconcile:
    """The accepted values; a mapping is found from the declaration's own folder."""
    folder = document.path.parent
    feeds = [
        ProviderFeed(
            one.name, one.format, one.dir_env, (folder / one.mapping).resolve() if one.mapping is not None else None
        )
        for one in declared.providers
    ]
    return Reconcile(tuple(feeds), declared.topics, declared.contacts_env, declared.idempotency_header)


def reconcile_findings(
    document: Document, declared: ReconcileDeclaration | None, vault: str, topics: Mapping[str, Collection[str]]
) -> Iterator[Finding]:
    """Feeds that nobody could tell apart or read, and topics that a restore test of the database could not read.

    `topics` are the estate's, with the vaults that each lies in; a restore test reads the database's `vault` alone.
    """
    if declared is None:
        return
    for index, feed in enumerate(declared.providers):
        place = ("reconcile", "providers", index)
        if feed.name in [one.name for one in declared.providers[:index]]:
            yield document.finding("policy.value", f"provider `{feed.name}` is listed twice", *place)
        if feed.dir_env in [one.dir_env for one in declared.providers[:index]]:
            reason = f"{feed.dir_env} is already another provider's folder: its files would be read twice"
            yield document.finding("policy.value", reason, *place, "dir_env")
        if feed.format == "csv" and feed.mapping is None:
            reason = "a `csv` of one's own needs a `mapping`: a file that says what its columns mean"
            yield document.finding("policy.mapping", reason, *place)
        if feed.format == "camt053" and feed.mapping is not None:
            yield document.finding(
                "policy.mapping", "`camt053` is a standard: it takes no `mapping`", *place, "mapping"
            )
    if declared.topics is not None and declared.topics not in topics:
        known = ", ".join(sorted(topics)) or "none"
        reason = f"no dataset of topics is called `{declared.topics}` (there are: {known})"
        yield document.finding("policy.topics", reason, "reconcile", "topics")
    elif declared.topics is not None and vault not in topics[declared.topics]:
        reason = (
            f"`{declared.topics}` lies in vault {', '.join(topics[declared.topics])}, and a restore test of this"
            f" database reads its own vault {vault} alone: capture or replicate the topics into {vault}"
        )
        yield document.finding("policy.topics", reason, "reconcile", "topics")
