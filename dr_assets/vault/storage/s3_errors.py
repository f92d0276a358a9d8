"""The SDK's exceptions, sorted: ours to wait for, the operator's to mend, or an answer to judge.

What belongs here: error codes. What stays out: requests. A parameter the SDK refuses is our own bug and crashes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from botocore.exceptions import (
    ClientError,
    ConnectionError,  # noqa: A004 - botocore's own name
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from botocore.parsers import ResponseParserError

from dr_assets.vault.storage.refusals import no_bucket, refused_credentials, unreachable

CREDENTIALS: Final = frozenset(
    {
        "AccessDenied",
        "AllAccessDisabled",
        "ExpiredToken",
        "Forbidden",
        "InvalidAccessKeyId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "403",
    }
)
ABSENT: Final = frozenset({"NoSuchKey", "NoSuchVersion", "NotFound", "MethodNotAllowed", "404", "405"})
TAKEN: Final = frozenset({"PreconditionFailed", "412"})
RACE: Final = frozenset({"ConditionalRequestConflict", "OperationAborted"})
FROZEN: Final = frozenset({"InvalidObjectState"})
THAWING: Final = frozenset({"RestoreAlreadyInProgress", "ObjectAlreadyInActiveTierError"})
NO_LOCK: Final = frozenset({"ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration"})
DOWN: Final = frozenset(
    {"InternalError", "ServiceUnavailable", "SlowDown", "RequestTimeout", "500", "502", "503", "504"}
)

BROKEN_BODY: Final = (IncompleteReadError, ResponseStreamingError, ReadTimeoutError)


class StoreAnswer(Exception):  # noqa: N818 - an answer that the caller judges, not an error yet
    """The store answered with an error code that means something to whoever asked. Never leaves storage/."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text


@contextmanager
def answers(endpoint: str, bucket: str) -> Iterator[None]:
    """Raise VaultError when nobody can be served, StoreAnswer when the store has something to say of one request."""
    try:
        yield
    except ClientError as error:
        details = error.response.get("Error", {})
        code, text = str(details.get("Code", "")), str(details.get("Message", ""))
        if code == "NoSuchBucket":
            raise no_bucket(bucket) from None
        if code in DOWN:
            raise unreachable(endpoint, f"{code} {text}"[:200]) from None
        raise StoreAnswer(code, text) from None
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise refused_credentials(endpoint, type(error).__name__) from None
    except (ConnectionError, HTTPClientError, ResponseParserError) as error:
        raise unreachable(endpoint, type(error).__name__) from None
