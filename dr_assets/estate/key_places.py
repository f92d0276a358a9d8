"""Where key-encryption keys and signing keys are kept, as accepted: one value a kind, secrets by variable name only.

What belongs here: the kinds and what each needs to be told. What stays out: talking to any of them (vault/keys,
vault/signing), judging declarations (key_rules.py).
"""

from dataclasses import dataclass
from typing import ClassVar, Final

AWS_KMS: Final = "aws_kms"
FILE: Final = "file"
OPENBAO: Final = "openbao"
PKCS11: Final = "pkcs11"


@dataclass(frozen=True, slots=True)
class FileKeys:
    """A folder of plain key-encryption keys: for demonstrations only."""

    dir_env: str

    kind: ClassVar[str] = FILE

    def env_names(self) -> tuple[str, ...]:
        """The variables it is found by."""
        return (self.dir_env,)

    def secret_envs(self) -> tuple[str, ...]:
        """Those whose values nobody may see."""
        return ()


@dataclass(frozen=True, slots=True)
class HsmKeys:
    """A PKCS#11 token: its library and PIN by variable, its label, and what the keys' labels begin with.

    `library_envs` are variables that the vendor's library reads by itself (SoftHSM: `SOFTHSM2_CONF`).
    """

    module_env: str
    token: str
    pin_env: str
    key: str
    library_envs: tuple[str, ...] = ()

    kind: ClassVar[str] = PKCS11

    def env_names(self) -> tuple[str, ...]:
        """The variables it is found by, the library's own among them."""
        return (self.module_env, self.pin_env, *self.library_envs)

    def secret_envs(self) -> tuple[str, ...]:
        """Those whose values nobody may see."""
        return (self.pin_env,)


@dataclass(frozen=True, slots=True)
class KmsKeys:
    """A key of AWS KMS by id, ARN or alias; without credentials here, those that the host has by itself."""

    region: str
    key: str
    endpoint_env: str | None = None
    access_key_env: str | None = None
    secret_key_env: str | None = None

    kind: ClassVar[str] = AWS_KMS

    def env_names(self) -> tuple[str, ...]:
        """The variables it is found by."""
        return tuple(name for name in (self.endpoint_env, self.access_key_env, self.secret_key_env) if name)

    def secret_envs(self) -> tuple[str, ...]:
        """Those whose values nobody may see."""
        return tuple(name for name in (self.access_key_env, self.secret_key_env) if name)


@dataclass(frozen=True, slots=True)
class BaoKeys:
    """A key of an OpenBao (or Vault) transit engine, entered by a token or by AppRole."""

    address_env: str
    key: str
    mount: str = "transit"
    token_env: str | None = None
    role_id_env: str | None = None
    secret_id_env: str | None = None
    ca_env: str | None = None

    kind: ClassVar[str] = OPENBAO

    def env_names(self) -> tuple[str, ...]:
        """The variables it is found by."""
        names = (self.address_env, self.token_env, self.role_id_env, self.secret_id_env, self.ca_env)
        return tuple(name for name in names if name)

    def secret_envs(self) -> tuple[str, ...]:
        """Those whose values nobody may see."""
        return tuple(name for name in (self.token_env, self.role_id_env, self.secret_id_env) if name)


KeyPlace = FileKeys | HsmKeys | KmsKeys | BaoKeys
SignerPlace = HsmKeys | KmsKeys | BaoKeys


@dataclass(frozen=True, slots=True)
class KeyProviderPlace:
    """One declared provider by its name in the declaration."""

    name: str
    place: KeyPlace
