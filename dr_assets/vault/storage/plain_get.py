"""GETs without the SDK's machinery, which costs more processor time than the request where objects are small.

What belongs here: one signed request with the SDK's own signer, over its client's own connections, and a plain success
told in the SDK's words. What stays out: everything else. Whatever is neither a plain success nor a plain refusal is no
answer, and the SDK asks anew, with its retries, redirects and errors.

Reaches for three attributes that the SDK keeps for itself: the client's endpoint, its sessions and its credentials.
The SDK is locked to one version; where they are missing, every GET is the SDK's.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import quote

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError
from botocore.response import StreamingBody
from urllib3.exceptions import HTTPError

from dr_assets.vault.storage.s3_errors import ABSENT, CREDENTIALS, FROZEN, StoreAnswer

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_WHOLE: Final = frozenset({HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT})
_TEXTS: Final = {
    "x-amz-version-id": "VersionId",
    "x-amz-object-lock-mode": "ObjectLockMode",
    "x-amz-object-lock-legal-hold": "ObjectLockLegalHoldStatus",
    "x-amz-checksum-sha256": "ChecksumSHA256",
    "x-amz-checksum-type": "ChecksumType",
    "x-amz-storage-class": "StorageClass",
    "x-amz-restore": "Restore",
}
_UNTIL: Final = "x-amz-object-lock-retain-until-date"
_REFUSALS: Final = frozenset({HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED})
_CODE: Final = re.compile(rb"<Code>([A-Za-z]+)</Code>")
_FINAL: Final = ABSENT | CREDENTIALS | FROZEN
_ERROR_LIMIT_BYTES: Final = 4096


class PlainGets:
    """GETs from one bucket over a client's connections; threads may share it as they may share the client."""

    def __init__(self, client: "S3Client", bucket: str) -> None:
        self._address = f"{client.meta.endpoint_url.rstrip('/')}/{quote(bucket, safe='')}/"
        self._region = client.meta.region_name
        self._session: Any = getattr(getattr(client, "_endpoint", None), "http_session", None)
        self._credentials: Any = getattr(getattr(client, "_request_signer", None), "_credentials", None)
        self._agent = str(cast("Any", client.meta.config).user_agent)

    def get(self, key: str, version_id: str | None, byte_range: str | None) -> Mapping[str, Any] | None:
        """As `get_object` answers, or None where the SDK has to ask. Raises StoreAnswer for a refusal."""
        if self._session is None or self._credentials is None:
            return None
        parameters = {} if version_id is None else {"versionId": version_id}
        request = AWSRequest("GET", self._address + quote(key, safe="/~"), params=parameters, stream_output=True)
        request.headers["User-Agent"] = self._agent
        if byte_range is not None:
            request.headers["Range"] = byte_range
        S3SigV4Auth(self._credentials, "s3", self._region).add_auth(request)
        try:
            response = self._session.send(request.prepare())
        except BotoCoreError:
            return None
        return _judged(response)


def _judged(response: Any) -> Mapping[str, Any] | None:
    try:
        if response.status_code in _WHOLE:
            return _answer(response)
        said = response.raw.read(_ERROR_LIMIT_BYTES) if response.status_code in _REFUSALS else b""
    except (ValueError, KeyError, OSError, HTTPError):
        said = b""
    response.raw.close()  # with what is unread: the connection isn't used again
    found = _CODE.search(said)
    code = "" if found is None else found[1].decode()
    if code in _FINAL:
        raise StoreAnswer(code, "")
    return None


def _answer(response: Any) -> dict[str, Any]:
    """The headers in the SDK's words. Raises KeyError, ValueError for what no store sends."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    size_bytes = int(headers["content-length"])
    answer: dict[str, Any] = {ours: headers[name] for name, ours in _TEXTS.items() if name in headers}
    if _UNTIL in headers:
        answer["ObjectLockRetainUntilDate"] = datetime.fromisoformat(headers[_UNTIL])
    return answer | {
        "ContentLength": size_bytes,
        "LastModified": parsedate_to_datetime(headers["last-modified"]),
        "Body": StreamingBody(response.raw, size_bytes),
        "ResponseMetadata": {"HTTPHeaders": headers},
    }
