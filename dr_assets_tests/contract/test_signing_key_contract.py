"""What every signing key promises, wherever it lies: memory, a PKCS#11 token, OpenBao, AWS KMS."""

import secrets
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from moto import mock_aws

from dr_assets.engines.openbao import BaoServer
from dr_assets.engines.softhsm import SoftHsm
from dr_assets.estate.errors import PolicyError, VaultError
from dr_assets.vault.keys.bao_client import BaoSession, Entry
from dr_assets.vault.keys.kms_provider import kms_client
from dr_assets.vault.keys.pkcs11_token import token_at
from dr_assets.vault.signing import MemoryKey, Signer, SigningKey, Trust
from dr_assets.vault.signing.kms_key import MESSAGE_LIMIT_BYTES, KmsSigningKey
from dr_assets.vault.signing.openbao_key import OpenBaoSigningKey
from dr_assets.vault.signing.pkcs11_key import Pkcs11SigningKey

pytestmark = pytest.mark.integration


class PlayedKms:
    """Two calls of AWS KMS as its reference describes them for ECC_NIST_EDWARDS25519, which moto doesn't know."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()

    def get_public_key(self, **asked: str) -> dict[str, object]:
        """DER, SubjectPublicKeyInfo."""
        assert asked == {"KeyId": "alias/sign"}
        return {"PublicKey": self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)}

    def sign(self, **asked: object) -> dict[str, object]:
        """Pure Ed25519 over a raw message of at most 4096 bytes."""
        assert (asked["MessageType"], asked["SigningAlgorithm"]) == ("RAW", "ED25519_SHA_512")
        message = asked["Message"]
        assert isinstance(message, bytes)
        if len(message) > MESSAGE_LIMIT_BYTES:
            raise ClientError({"Error": {"Code": "ValidationException"}}, "Sign")
        return {"Signature": self._key.sign(message)}


def in_openbao(server: BaoServer) -> SigningKey:
    """A transit key of type ed25519, used by AppRole."""
    server.make_key("dr-assets-sign", "ed25519")
    role_id, secret_id = server.make_role()
    session = BaoSession(server.address, Entry(role_id=role_id, secret_id=secret_id), timeout_s=180.0)
    return OpenBaoSigningKey(session, "dr-assets-sign")


@pytest.fixture(params=["memory", "pkcs11", "openbao", "aws_kms"])
def key(request: pytest.FixtureRequest) -> Iterator[SigningKey]:
    """Each kind."""
    match request.param:
        case "memory":
            yield MemoryKey(Ed25519PrivateKey.generate())
        case "pkcs11":
            hsm: SoftHsm = request.getfixturevalue("softhsm")
            yield Pkcs11SigningKey.create(token_at(hsm.module, "one", hsm.pin), f"sign-{secrets.token_hex(4)}")
        case "openbao":
            make: Callable[[], BaoServer] = request.getfixturevalue("bao_server")
            yield in_openbao(make())
        case _:
            yield KmsSigningKey(cast("Any", PlayedKms()), "alias/sign")


def test_what_it_signs_anybody_can_check(key: SigningKey) -> None:
    """Ed25519 as everywhere: deterministic, 64 bytes, in its domain only, and raw for foreign formats."""
    signer = Signer(key)
    trust = Trust.of(signer)
    for message in (b"", b"m", b"x" * 4000):
        signature = signer.sign(b"domain", message)
        assert len(signature) == 64
        assert signature == signer.sign(b"domain", message)
        trust.verify(signer.signer_id, signature, b"domain", message, name="it")
        with pytest.raises(VaultError, match="bad_signature"):
            trust.verify(signer.signer_id, signature, b"other", message, name="it")
    assert signer.sign_raw(b"domain\0m") == signer.sign(b"domain", b"m")
    assert key.public_key.hex() in repr(key)
    assert len(key.public_key) == 32


def test_a_key_in_a_token_cannot_be_read_or_saved(softhsm: SoftHsm, tmp_path: Any) -> None:
    """Nor is a second one of its name signed with by accident; one that lacks is told."""
    token = token_at(softhsm.module, "two", softhsm.pin)
    label = f"sign-{secrets.token_hex(4)}"
    with pytest.raises(PolicyError, match="no_signing_key"):
        Pkcs11SigningKey(token, label)
    signer = Signer(Pkcs11SigningKey.create(token, label))
    with pytest.raises(PolicyError, match="not_exportable"):
        signer.save(tmp_path / "key.pem")
    with pytest.raises(PolicyError, match="holds 2 keys"):
        Pkcs11SigningKey.create(token, label)


def test_a_key_of_another_kind_is_refused(bao_server: Callable[[], BaoServer]) -> None:
    """A wrapping key does not sign, in OpenBao and in KMS (moto knows no Ed25519, but a P-256 key)."""
    server = bao_server()
    server.make_key("dr-assets")
    with pytest.raises(PolicyError, match="ed25519"):
        OpenBaoSigningKey(BaoSession(server.address, Entry(token=server.root_token), timeout_s=180.0), "dr-assets")
    with mock_aws():
        client = kms_client("eu-central-1", access_key="AKIAEXAMPLE", secret_key="secret")
        other = client.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
        with pytest.raises(PolicyError, match="ECC_NIST_EDWARDS25519"):
            KmsSigningKey(client, other)


def test_kms_is_not_given_a_message_that_it_would_refuse() -> None:
    """4096 bytes is its limit: a bug of ours crashes here instead of at the vault's busiest moment."""
    with pytest.raises(ValueError, match="4096"):
        KmsSigningKey(cast("Any", PlayedKms()), "alias/sign").sign(bytes(MESSAGE_LIMIT_BYTES + 1))
