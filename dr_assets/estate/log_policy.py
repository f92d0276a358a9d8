"""Who outside vouches for the log: the policy, how declared strings become it, and what of them is refused.

What belongs here: witnesses, time stamps and anchors as data. What stays out: asking them (vault/log).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from dr_assets.estate.documents import Document
from dr_assets.estate.durations import parse_duration
from dr_assets.estate.findings import Finding
from dr_assets.estate.schema import EstateDeclaration, LogDeclaration


@dataclass(frozen=True, slots=True)
class DeclaredWitness:
    """A witness; `url_env` names the variable with its address, `key` is its public verifier key."""

    name: str
    url_env: str
    key: str


@dataclass(frozen=True, slots=True)
class DeclaredStamps:
    """A time-stamping authority (RFC 3161); `roots_env` names a PEM file with the certificates that are believed."""

    url_env: str
    roots_env: str
    every: timedelta


@dataclass(frozen=True, slots=True)
class DeclaredAnchor:
    """An EVM chain; `key_env` names the variable with the private key that pays (64 hex digits)."""

    url_env: str
    key_env: str
    chain_id: int
    confirmations: int
    every: timedelta


@dataclass(frozen=True, slots=True)
class LogPolicy:
    """Outsiders that vouch for the log. `quorum` of the witnesses have to cosign within `cosigned_within`."""

    witnesses: tuple[DeclaredWitness, ...] = ()
    quorum: int = 0
    cosigned_within: timedelta = timedelta(hours=1)
    timestamp: DeclaredStamps | None = None
    anchor: DeclaredAnchor | None = None

    def env_names(self) -> set[str]:
        """The environment variables that are asked for."""
        names = {witness.url_env for witness in self.witnesses}
        names |= {self.timestamp.url_env, self.timestamp.roots_env} if self.timestamp else set()
        return names | ({self.anchor.url_env, self.anchor.key_env} if self.anchor else set())


def log_policy_of(declared: LogDeclaration | None) -> LogPolicy:
    """The policy of accepted strings; without a declaration nobody vouches."""
    if declared is None:
        return LogPolicy()
    stamps, anchor = declared.timestamp, declared.anchor
    return LogPolicy(
        tuple(DeclaredWitness(witness.name, witness.url_env, witness.key) for witness in declared.witnesses),
        declared.quorum if declared.quorum is not None else min(1, len(declared.witnesses)),
        parse_duration(declared.cosigned_within),
        DeclaredStamps(stamps.url_env, stamps.roots_env, parse_duration(stamps.every)) if stamps else None,
        DeclaredAnchor(
            anchor.url_env, anchor.key_env, anchor.chain_id, anchor.confirmations, parse_duration(anchor.every)
        )
        if anchor
        else None,
    )


def log_rules(document: Document, declared: EstateDeclaration) -> Iterator[Finding]:
    """What one witness can't be, and a quorum that can't be had."""
    if declared.log is None:
        return
    witnesses = declared.log.witnesses
    for field, values in (
        ("name", [witness.name for witness in witnesses]),
        ("key", [witness.key for witness in witnesses]),
    ):
        for at, value in enumerate(values):
            if value in values[:at]:
                reason = f"two witnesses have this {field}; one witness counts once"
                yield document.finding("policy.witness_twice", reason, "log", "witnesses", at, field)
    if declared.log.quorum is not None and declared.log.quorum > len(witnesses):
        reason = f"{declared.log.quorum} of {len(witnesses)} witnesses can never cosign"
        yield document.finding("policy.quorum", reason, "log", "quorum")
