"""Key-encryption keys in AWS KMS: the context goes as encryption context, and shows in CloudTrail.

What belongs here: wrapping through boto3, whose answers are told apart: no answer, not allowed, not this key. What
stays out: making keys and their policies (infra/), KMS's own yearly rotation (its old material goes on opening).
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from dr_assets.estate.errors import PolicyError
from dr_assets.vault.keys.provider import WrapContext, Wrapping
from dr_assets.vault.keys.refusals import refused, unreachable, wrong_key

if TYPE_CHECKING:
    from mypy_boto3_kms.client import KMSClient

ANSWER_TIMEOUT_S: Final = 5.0
_KEK_ID_LABEL: Final = b"dr_assets v1 aws_kms kek id\0"
_WRONG: Final = frozenset({"InvalidCiphertextException", "IncorrectKeyException"})
# KMS itself is not well, or asks to come back: nothing is said about the key.
_AWAY: Final = frozenset(
    {"DependencyTimeoutException", "KMSInternalException", "KeyUnavailableException", "ThrottlingException",
     "InternalFailure", "ServiceUnavailable", "ServiceUnavailableException", "RequestLimitExceeded"}
)  # fmt: skip
_SERVER_ERROR: Final = 500


def kms_client(
    region: str,
    *,
    endpoint: str | None = None,
    access_key: str | None = None,
    secret_key: str | None = None,
    timeout_s: float = ANSWER_TIMEOUT_S,
) -> "KMSClient":
    """A client that gives up in seconds; without a pair of keys, with those that the host has by itself."""
    return boto3.client(
        "kms",
        region_name=region,
        endpoint_url=endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        config=Config(connect_timeout=timeout_s, read_timeout=timeout_s, retries={"total_max_attempts": 2}),
    )


class KmsKeyProvider:
    """A KeyProvider over one KMS key by id, ARN or alias."""

    def __init__(self, client: "KMSClient", key: str, *, name: str = "aws_kms") -> None:
        self.name = name
        self._client = client
        self._key = key

    def __repr__(self) -> str:
        return f"KmsKeyProvider({self.name}, {self._key})"

    @property
    def kek_id(self) -> str:
        """As the port says; an alias is asked each time where it points."""
        with answers(self.name):
            return kek_id_of_arn(self._client.describe_key(KeyId=self._key)["KeyMetadata"]["Arn"])

    def wrap(self, secret: bytes, context: WrapContext) -> Wrapping:
        """As the port says."""
        with answers(self.name):
            answer = self._client.encrypt(KeyId=self._key, Plaintext=secret, EncryptionContext=_texts(context))
        return Wrapping(kek_id_of_arn(answer["KeyId"]), answer["CiphertextBlob"])

    def unwrap(self, wrapping: Wrapping, context: WrapContext) -> bytes:
        """As the port says. KMS finds the key itself, so that an alias that moved on still opens."""
        if not wrapping.wrapped:
            raise wrong_key(context, "the wrapping is empty")
        try:
            with answers(self.name, context):
                answer = self._client.decrypt(CiphertextBlob=wrapping.wrapped, EncryptionContext=_texts(context))
        except PolicyError:
            # KMS says "access denied" of keys that it doesn't know as well: only of our own that is a refusal.
            if self.kek_id == wrapping.kek_id:
                raise
            raise wrong_key(context, f"{wrapping.kek_id} wrapped it, and KMS does not let us use that key") from None
        if kek_id_of_arn(answer["KeyId"]) != wrapping.kek_id:
            raise wrong_key(context, f"another key than {wrapping.kek_id} opens it")
        return answer["Plaintext"]


def kek_id_of_arn(arn: str) -> str:
    """From account and key: the replicas of a multi-region key, which open each other's wrappings, have one id."""
    account_and_key = arn.partition(":kms:")[2].partition(":")[2]
    return hashlib.sha256(_KEK_ID_LABEL + account_and_key.encode()).hexdigest()[:32]


def _texts(context: WrapContext) -> Mapping[str, str]:
    return {
        "dataset": context.dataset,
        "estate": context.estate,
        "generation": str(context.generation),
        "key_id": context.key_id,
        "purpose": context.purpose,
    }


@contextmanager
def answers(name: str, context: WrapContext | None = None) -> Iterator[None]:
    """Tell KMS's refusals apart: `keys.unreachable`, `keys.refused`, and with a `context` `vault.wrong_key`."""
    try:
        yield
    except ClientError as error:
        code, status = _code(error.response)
        if code in _WRONG and context is not None:
            raise wrong_key(context, f"KMS answers {code}") from None
        if code in _AWAY or status >= _SERVER_ERROR:
            raise unreachable(name, f"KMS answers {code}") from None
        raise refused(name, f"KMS answers {code}") from None
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise refused(name, f"no credentials ({type(error).__name__})") from None
    except BotoCoreError as error:
        raise unreachable(name, type(error).__name__) from None


def _code(response: Any) -> tuple[str, int]:
    return str(response.get("Error", {}).get("Code", "")), int(
        response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    )
