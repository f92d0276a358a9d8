"""Rules and conversion for declared key providers and signers (docs/policy.md, docs/keys.md).

What belongs here: what each kind has to be told, names that must exist, and the accepted values. What stays out: other
declarations' rules (rules.py), the strings' shapes (schema.py).
"""

from collections.abc import Iterator
from typing import Final

from dr_assets.estate.documents import Document, Place
from dr_assets.estate.findings import Finding
from dr_assets.estate.key_places import (
    AWS_KMS,
    FILE,
    OPENBAO,
    PKCS11,
    BaoKeys,
    FileKeys,
    HsmKeys,
    KeyPlace,
    KeyProviderPlace,
    KmsKeys,
    SignerPlace,
)
from dr_assets.estate.model import Estate
from dr_assets.estate.schema import DatasetDeclaration, EstateDeclaration, KeyPlaceDeclaration, KeysDeclaration

# By kind: what it must be told, and what it may be.
_FIELDS: Final[dict[str, tuple[frozenset[str], frozenset[str]]]] = {
    FILE: (frozenset({"dir_env"}), frozenset()),
    PKCS11: (frozenset({"module_env", "token", "pin_env", "key"}), frozenset({"library_envs"})),
    AWS_KMS: (frozenset({"region", "key"}), frozenset({"endpoint_env", "access_key_env", "secret_key_env"})),
    OPENBAO: (
        frozenset({"address_env", "key"}),
        frozenset({"mount", "token_env", "role_id_env", "secret_id_env", "ca_env"}),
    ),
}


def key_findings(document: Document, declared: EstateDeclaration) -> Iterator[Finding]:
    """What is wrong with an estate's `keys`."""
    keys = declared.keys
    if (keys.dir_env is None) == (keys.providers is None):
        reason = "`keys` has either `dir_env` (one folder of plain keys, for demos) or `providers`"
        yield document.finding("policy.key_provider", reason, "keys")
    if (keys.signing_key_env is None) == (keys.signer is None):
        reason = "`keys` has either `signing_key_env` (a file) or `signer` (a token or key service)"
        yield document.finding("policy.signer", reason, "keys")
    for name, provider in (keys.providers or {}).items():
        yield from _told(document, provider, ("keys", "providers", name))
    if keys.signer is not None:
        if keys.signer.kind == FILE:
            reason = "a signing key in a file is declared by `signing_key_env`"
            yield document.finding("policy.signer", reason, "keys", "signer", "kind")
        else:
            yield from _told(document, keys.signer, ("keys", "signer"))


def _told(document: Document, declared: KeyPlaceDeclaration, place: Place) -> Iterator[Finding]:
    needed, allowed = _FIELDS[declared.kind]
    given = {name for name, value in declared if value is not None and name != "kind"}
    for name in sorted(needed - given):
        yield document.finding("policy.missing", f"a `{declared.kind}` needs `{name}`", *place)
    for name in sorted(given - needed - allowed):
        yield document.finding("policy.unknown_key", f"`{name}` is not a key of `{declared.kind}`", *place, name)
    if (declared.access_key_env is None) != (declared.secret_key_env is None):
        reason = "`access_key_env` and `secret_key_env` come together, or neither (then the host's own role is used)"
        yield document.finding("policy.missing", reason, *place)
    by_role = (declared.role_id_env is not None, declared.secret_id_env is not None)
    if declared.kind == OPENBAO and ((declared.token_env is not None) == any(by_role) or any(by_role) != all(by_role)):
        reason = "an `openbao` needs either `token_env` or both `role_id_env` and `secret_id_env`"
        yield document.finding("policy.missing", reason, *place)


def chosen_findings(document: Document, declared: DatasetDeclaration, estate: EstateDeclaration) -> Iterator[Finding]:
    """What is wrong with a dataset's choice of providers."""
    known = list(estate.keys.providers or [FILE])
    for index, name in enumerate(declared.key_providers or ()):
        if name not in known:
            reason = f"no key provider `{name}`; the estate declares {', '.join(known)}"
            yield document.finding("policy.key_provider", reason, "key_providers", index)
        elif name in (declared.key_providers or [])[:index]:
            yield document.finding("policy.key_provider", f"`{name}` is listed twice", "key_providers", index)


def providers_of(declared: KeysDeclaration) -> tuple[KeyProviderPlace, ...]:
    """The accepted providers; `dir_env` alone is one of kind and name `file`."""
    if declared.providers is None:
        return (KeyProviderPlace(FILE, FileKeys(declared.dir_env or "")),)
    return tuple(KeyProviderPlace(name, _place_of(one)) for name, one in declared.providers.items())


def signer_of(declared: KeysDeclaration) -> SignerPlace | None:
    """The accepted signer, None for one in a file."""
    place = None if declared.signer is None else _place_of(declared.signer)
    return None if isinstance(place, FileKeys) else place


def _place_of(declared: KeyPlaceDeclaration) -> KeyPlace:
    given = {name: value for name, value in declared if value is not None and name != "kind"}
    match declared.kind:
        case "pkcs11":
            return HsmKeys(**given | {"library_envs": tuple(declared.library_envs or ())})
        case "aws_kms":
            return KmsKeys(**given)
        case "openbao":
            return BaoKeys(**given)
        case _:
            return FileKeys(**given)


def demo_only(estate: Estate) -> str | None:
    """A loud note for an estate whose only key provider is a folder of plain keys, None for any other."""
    if any(one.place.kind != FILE for one in estate.key_providers):
        return None
    return (
        "the only key provider is `file`: key-encryption keys in plain files, for demos, NOT for production. Whoever "
        "reads that folder reads every backup; docs/keys.md shows how to declare an HSM, AWS KMS or OpenBao"
    )
