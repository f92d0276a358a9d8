"""The casino's identity documents in a bucket: small pictures and pages of made-up players.

What belongs here: making them, putting them, reading them back. What stays out: protecting them (stores/bucket).
"""

import hashlib
import struct
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError

from dr_assets.estate.errors import SourceError

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_SIDE: Final = 48  # pixels of a picture
_AT_ONCE: Final = 8
_FONT: Final = "<< /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >>"


@dataclass(frozen=True, slots=True)
class Document:
    """One object: whose it is stands in its name."""

    name: str
    content: bytes = field(repr=False)
    content_type: str
    player_id: int

    @property
    def sha256(self) -> str:
        """Of its bytes."""
        return hashlib.sha256(self.content).hexdigest()


def documents(players: Iterable[int], seed: int = 1) -> Iterator[Document]:
    """A passport's picture and a proof of address for each player; the same ones for the same seed."""
    for player_id in players:
        random = Random(f"kyc {seed} {player_id}")
        folder = f"players/{player_id}"
        yield Document(f"{folder}/passport.png", _picture(random), "image/png", player_id)
        yield Document(f"{folder}/proof-of-address.pdf", _page(player_id, random), "application/pdf", player_id)


def put_documents(client: "S3Client", bucket: str, made: Iterable[Document]) -> dict[str, str]:
    """Put them, with type, tag and metadata; the SHA-256 of each by its name. Raises SourceError (`casino.bucket`)."""

    def put(document: Document) -> tuple[str, str]:
        with _answers(bucket):
            client.put_object(
                Bucket=bucket,
                Key=document.name,
                Body=document.content,
                ContentType=document.content_type,
                Tagging=f"player={document.player_id}",
                Metadata={"document": document.name.rpartition("/")[2].partition(".")[0]},
            )
        return document.name, document.sha256

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="kyc") as pool:
        return dict(pool.map(put, made))


def read_documents(client: "S3Client", bucket: str) -> dict[str, str]:
    """The SHA-256 of every object of a bucket, read whole. Raises SourceError (`casino.bucket`)."""

    def read(name: str) -> tuple[str, str]:
        with _answers(bucket):
            body = client.get_object(Bucket=bucket, Key=name)["Body"].read()
        return name, hashlib.sha256(body).hexdigest()

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="kyc") as pool:
        return dict(pool.map(read, _names(client, bucket)))


def _names(client: "S3Client", bucket: str) -> list[str]:
    found: list[str] = []
    with _answers(bucket):
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            found += [row["Key"] for row in page.get("Contents", [])]
    return found


def _picture(random: Random) -> bytes:
    """A grey picture of noise: a PNG of one filter and one chunk of data."""
    rows = b"".join(b"\0" + random.randbytes(_SIDE) for _ in range(_SIDE))
    header = struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _page(player_id: int, random: Random) -> bytes:
    """A page that says where somebody lives, as small as a PDF can be."""
    text = f"BT /F1 12 Tf 50 700 Td (Player {player_id}, {random.randint(1, 400)} Republic Street, Valletta) Tj ET"
    parts = (
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R /Resources {_FONT} >>",
        f"<< /Length {len(text)} >>\nstream\n{text}\nendstream",
    )
    page, places = "%PDF-1.4\n", list[int]()
    for number, part in enumerate(parts, start=1):
        places.append(len(page))
        page += f"{number} 0 obj\n{part}\nendobj\n"
    table = "".join(f"{at:010d} 00000 n \n" for at in places)
    end = f"trailer\n<< /Size {len(parts) + 1} /Root 1 0 R >>\nstartxref\n{len(page)}\n%%EOF\n"
    return f"{page}xref\n0 {len(parts) + 1}\n0000000000 65535 f \n{table}{end}".encode("ascii")


@contextmanager
def _answers(bucket: str) -> Iterator[None]:
    """Turns what the SDK raises into an error for people."""
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise SourceError(
            "casino.bucket", f"the bucket {bucket} does not take part: {type(error).__name__}", "does its store run?"
        ) from None
