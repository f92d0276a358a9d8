"""The errors that every store raises in the same words.

What belongs here: one function an error. What stays out: deciding which it is.
"""

from dr_assets.estate.errors import VaultError


def key_conflict(key: str) -> VaultError:
    """The name is taken by other bytes."""
    return VaultError(
        "vault.key_conflict",
        f"{key} holds other bytes already",
        "names carry digests, so somebody else wrote there; `dr-assets vault verify` shows what",
    )


def missing(key: str, version_id: str | None) -> VaultError:
    """There is no such version."""
    which = f" (version {version_id})" if version_id else ""
    return VaultError(
        "vault.missing",
        f"{key}{which} is not in the vault",
        "restore from a replica of this vault, or an earlier base backup",
    )


def too_large(key: str, size_bytes: int, limit_bytes: int) -> VaultError:
    """More bytes than an object of its kind can have."""
    return VaultError(
        "vault.too_large",
        f"{key} has {size_bytes} bytes, at most {limit_bytes} can be ours",
        "it was never sealed by us or was altered; `dr-assets vault verify` lists every such object",
    )


def endless(prefix: str) -> VaultError:
    """A listing that comes back to where it was."""
    return VaultError(
        "vault.endless_listing",
        f"the store says that the listing of {prefix} goes on, and not from where",
        "the store or something before it is faulty: see its log, or read from a replica of this vault",
    )


def cold(key: str) -> VaultError:
    """It is there, and nobody can read it before it is thawed."""
    return VaultError(
        "vault.cold",
        f"{key} lies in a cold class and has to be thawed before it can be read",
        "`dr-assets restore DATASET --thaw` asks for all that a restore needs and says how long it takes",
    )


def not_cold(key: str) -> VaultError:
    """There is nothing to thaw."""
    return VaultError("vault.not_cold", f"{key} lies in no cold class", "read it")


def lock_refused(key: str, why: str) -> VaultError:
    """The store keeps its lock."""
    return VaultError("vault.lock_refused", f"{key}: {why}", "a lock only ever grows")


def unreachable(endpoint: str, why: str) -> VaultError:
    """No answer, or none that makes sense."""
    return VaultError(
        "vault.unreachable",
        f"{endpoint} does not answer: {why}",
        "check the endpoint, the network and the store itself",
    )


def refused_credentials(endpoint: str, code: str) -> VaultError:
    """The store knows us and says no, or doesn't know us."""
    return VaultError(
        "vault.refused_credentials",
        f"{endpoint} refuses the credentials ({code})",
        "check the access key, the secret key and what that identity may do; retrying won't help",
    )


def no_bucket(bucket: str) -> VaultError:
    """The bucket is not there."""
    return VaultError(
        "vault.no_bucket", f"there is no bucket '{bucket}'", "`dr-assets vault init` creates it with Object Lock on"
    )


def refused(what: str, code: str, text: str) -> VaultError:
    """Any other answer of the store."""
    return VaultError("vault.refused", f"{what}: the store answers {code}: {text[:200]}", "see the store's own log")


def unprotected(bucket: str) -> VaultError:
    """The bucket can't lock."""
    return VaultError(
        "vault.bucket_unprotected",
        f"bucket '{bucket}' has no versioning with Object Lock, and a store can't always add it later",
        "declare another bucket name; `dr-assets vault init` creates it with Object Lock",
    )
