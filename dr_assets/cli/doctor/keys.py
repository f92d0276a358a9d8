"""Probes of what keeps keys: each provider of the dataset wraps and unwraps, the signer signs and is trusted.

What belongs here: asking them as a capture would. What stays out: wrappings in the vault, rotation.
"""

import os
import stat
from collections.abc import Iterator
from typing import Final

from dr_assets.cli.doctor.line import Line
from dr_assets.cli.doctor.patient import Patient
from dr_assets.estate.errors import DrError
from dr_assets.estate.key_places import FileKeys, KeyProviderPlace
from dr_assets.vault.keys.derive import KEY_BYTES
from dr_assets.vault.keys.file_provider import DEMO_ONLY
from dr_assets.vault.keys.provider import WrapContext
from dr_assets.vault.keys.providers import name_of, provider_of
from dr_assets.vault.signing import Trust
from dr_assets.vault.signing.declared import signer_of

_PROBE_KEY_ID: Final = "00" * 16


def keys(patient: Patient) -> Iterator[Line]:
    """Each provider wraps and unwraps, the signing key signs, and the trust file lists it and is its owner's alone."""
    chosen = patient.dataset.key_providers
    declared = [one for one in patient.estate.key_providers if chosen is None or one.name in chosen]
    yield from (_provider(patient, one, alone=len(declared) == 1) for one in declared)
    if len(declared) > 1:
        names = ", ".join(one.name for one in declared)
        yield Line("keys", "ok", f"wrapped by {names}: as closed as the weakest of them, open while one answers")
    signer = signer_of(patient.estate, patient.env)
    signer.sign(b"dr_assets doctor", b"")
    where = "readable by its owner alone" if patient.estate.signer is None else f"signs in {patient.estate.signer.kind}"
    yield Line("signing key", "ok", f"{where}, signer {signer.signer_id}")
    yield from _trust(patient, signer.signer_id)


def _provider(patient: Patient, declared: KeyProviderPlace, *, alone: bool) -> Line:
    context = WrapContext(patient.estate.name, patient.dataset.name, _PROBE_KEY_ID, 1, purpose="probe")
    secret = os.urandom(KEY_BYTES)
    try:
        provider = provider_of(declared, patient.env)
        wrapping = provider.wrap(secret, context)
        opened = provider.unwrap(wrapping, context) == secret
    except DrError as error:
        if alone:
            raise
        hint = f"no new data key until it answers: {error.hint}"
        return Line("keys", "bad", f"{name_of(declared)}: {error.found}", hint)
    if not opened:
        return Line("keys", "bad", f"{name_of(declared)} gives back another key than it took", "don't trust it")
    if isinstance(declared.place, FileKeys):
        folder = patient.path(declared.place.dir_env)
        copy = "keep a copy of this folder off this host and off the vault: without it no backup can ever be opened"
        return Line("keys", "warn", f"{folder}: readable; {DEMO_ONLY.partition(':')[0]}, for demos only", copy)
    return Line("keys", "ok", f"{name_of(declared)} wraps and unwraps, key-encryption key {wrapping.kek_id}")


def _trust(patient: Patient, signer_id: str) -> Iterator[Line]:
    path = patient.path(patient.estate.trust_file_env)
    trusted = Trust.load(path).public_keys
    if signer_id not in trusted:
        hint = "add this host's public key, or nothing that it seals will be believed by anybody with this file"
        yield Line("trust file", "bad", f"{path} does not list signer {signer_id}", hint)
    else:
        yield Line("trust file", "ok", f"lists {len(trusted)} signers, this host's among them")
    if path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield Line(
            "trust file", "bad", f"{path} can be written by others", f"chmod 644 {path}: they could add a signer"
        )
