"""A reader of format version 1, written from docs/format.md alone: it imports nothing of dr_assets.

    python reader.py VAULT_FOLDER KEYS_FOLDER TRUST_FILE

What belongs here: the shortest honest way from a folder of objects, each under its name, to plaintexts and to what they
say of each other. What stays out: anything the page doesn't say.
"""

import base64
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import zstandard
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

MIB = 1 << 20
PLACES = ("estate", "dataset", "stream", "system_id")
NAME = re.compile(r"(?:[a-z0-9][a-z0-9._-]{0,62}/){4}[0-9A-F]{8}/[0-9A-F]{16}-[0-9A-F]{16}-[0-9a-f]{32}")
WIDTH = 256
FIELDS = {
    *PLACES, "timeline", "first", "last", "kind", "begin_at", "end_at", "sealed_at", "codec", "size_bytes",
    "plaintext_sha256", "key_id", "salt", "key_commitment", "signer_id", "previous", "writer_epoch", "extra",
}  # fmt: skip


class RefusedError(Exception):
    """The bytes break a rule of the page."""


def require(condition: object, rule: str) -> None:
    """Or refuse."""
    if not condition:
        raise RefusedError(rule)


def canonical(value: Any) -> bytes:
    """Section 2."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def parse(text: bytes) -> dict[str, Any]:
    """Section 2, the other way."""
    try:
        value = json.loads(text.decode("ascii"))
    except (ValueError, RecursionError):
        raise RefusedError("JSON") from None
    require(isinstance(value, dict) and canonical(value) == text, "canonical")
    return dict(value)


def hkdf(secret: bytes, salt: bytes | None, info: bytes, length: int) -> bytes:
    """RFC 5869."""
    return HKDF(hashes.SHA256(), length, salt, info).derive(secret)


def verify(public_keys: list[str], signer_id: str, signature: bytes, message: bytes) -> None:
    """By the one key of that id."""
    keys = {hashlib.sha256(bytes.fromhex(key)).hexdigest()[:32]: bytes.fromhex(key) for key in public_keys}
    require(signer_id in keys, "trusted signer")
    Ed25519PublicKey.from_public_bytes(keys[signer_id]).verify(signature, message)


def open_key_object(name: str, data: bytes, keks: list[bytes], public_keys: list[str]) -> bytes:
    """Section 4: the data key."""
    require(hashlib.sha256(data).hexdigest()[:32] == name[-32:], "digest in the name")
    fields = parse(data)
    signature = bytes.fromhex(fields.pop("signature"))
    require(fields["kind"] == "dr_assets key object v1", "kind")
    verify(public_keys, fields["signer_id"], signature, b"dr_assets key object v1\0" + canonical(fields))
    place = f"{fields['estate']}/{fields['dataset']}/keys/{fields['key_id']}/{fields['generation']:08X}/"
    require(name == f"{place}{'0' * 16}-{'0' * 16}-{name[-32:]}", "name")
    context = {field: fields[field] for field in ("dataset", "estate", "generation", "key_id", "purpose")}
    by_id = {hashlib.sha256(b"dr_assets v1 kek id\0" + kek).hexdigest()[:32]: kek for kek in keks}
    wrapped = bytes.fromhex(fields["wrapped"])
    secret = AESGCM(by_id[fields["kek_id"]]).decrypt(wrapped[:12], wrapped[12:], canonical(context))
    require(hkdf(secret, None, b"dr_assets v1 key id", 16).hex() == fields["key_id"], "key id")
    return secret


def open_object(name: str, data: bytes, data_keys: list[bytes], public_keys: list[str]) -> tuple[dict[str, Any], bytes]:
    """Section 3: header and plaintext."""
    require(data[:7] == b"\x89DRSEAL" and data[7:8] == b"\1", "magic and version")
    length = int.from_bytes(data[8:12], "big")
    require(length <= 65536 and 12 + length + 96 <= len(data), "header length")
    header = parse(data[12 : 12 + length])
    require(header.keys() == FIELDS and header["codec"] == "zstd+aes-256-gcm", "fields")
    header_digest = hashlib.sha256(data[: 12 + length]).digest()
    content_digest, signature = data[-96:-64], data[-64:]
    require(hashlib.sha256(data[:-96]).digest() == content_digest, "content digest")
    message = b"dr_assets sealed object v1\0" + header_digest + content_digest
    verify(public_keys, header["signer_id"], signature, message)
    place = "/".join(header[part] for part in PLACES) + f"/{header['timeline']:08X}/"
    digest = hashlib.sha256(data).hexdigest()[:32]
    require(name == f"{place}{header['first']}-{header['last']}-{digest}", "name")
    by_id = {hkdf(key, None, b"dr_assets v1 key id", 16).hex(): key for key in data_keys}
    keys = hkdf(by_id[header["key_id"]], bytes.fromhex(header["salt"]), b"dr_assets v1 object", 64)
    require(keys[32:].hex() == header["key_commitment"], "key commitment")
    plaintext = b"".join(frames(data[12 + length : -96], keys[:32], header_digest, header["size_bytes"]))
    require(hashlib.sha256(plaintext).hexdigest() == header["plaintext_sha256"], "plaintext digest")
    return header, plaintext


def frames(body: bytes, key: bytes, header_digest: bytes, size_bytes: int) -> list[bytes]:
    """Section 3, Frames."""
    count, pieces, at = max(1, -(-size_bytes // MIB)), [], 0
    for number in range(count):
        length = int.from_bytes(body[at : at + 4], "big")
        bound = header_digest + number.to_bytes(4, "big") + bytes([number == count - 1])
        frame = AESGCM(key).decrypt(number.to_bytes(12, "big"), body[at + 4 : at + 4 + length], bound)
        size = min(MIB, size_bytes - number * MIB)
        require(zstandard.frame_content_size(frame) == size, "piece size")
        pieces.append(zstandard.decompress(frame, max_output_size=max(1, size)))
        at += 4 + length
    require(at == len(body), "frames fill the body")
    return pieces


class Folder:
    """A vault whose objects lie as files under their names, as an export leaves them; all of it is opened at once."""

    def __init__(self, folder: Path, keks: list[bytes], public_keys: list[str]) -> None:
        self.public_keys = public_keys
        self.files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
        self.names = [name for name in self.files if NAME.fullmatch(name)]
        keys = [name for name in self.names if name.split("/")[2] == "keys"]
        mine = [name for name in keys if parse(self.read(name))["provider"].split("/")[0] == "file"]
        self.data_keys = list({open_key_object(name, self.read(name), keks, public_keys) for name in mine})
        self.headers: dict[str, dict[str, Any]] = {}
        self.plaintexts: dict[str, bytes] = {}
        self.digests: dict[str, str] = {}
        for name in sorted(set(self.names) - set(keys)):
            data = self.read(name)
            self.headers[name], self.plaintexts[name] = open_object(name, data, self.data_keys, public_keys)
            self.digests[name] = hashlib.sha256(data[: 12 + int.from_bytes(data[8:12], "big")]).hexdigest()

    def read(self, name: str) -> bytes:
        """The bytes under a name."""
        return self.files[name].read_bytes()

    def stream(self, dataset: str, stream: str) -> list[str]:
        """The names of a stream, in order."""
        return [name for name in sorted(self.headers) if name.split("/")[1:3] == [dataset, stream]]

    def body(self, name: str) -> dict[str, Any]:
        """What a manifest, a list or a fact says."""
        return parse(self.plaintexts[name])

    def facts(self, dataset: str, kind: str) -> list[dict[str, Any]]:
        """Section 5, Facts: oldest first, each naming the one before it."""
        names = self.stream(dataset, f"facts-{kind}")
        for before, name in pairwise(names):
            header = self.headers[name]
            require(header["extra"].get("previous_key") == before, "the fact before")
            require(header["previous"] == self.digests[before], "the header of the fact before")
        return [self.body(name) for name in names]

    def parts(self, manifest: str) -> list[str]:
        """Section 5, Manifests: the names of the parts, each with the digest and size that is on the list."""
        listed = []
        for row in self.body(manifest)["parts"]:
            data = self.read(row["key"])
            require((hashlib.sha256(data).hexdigest(), len(data)) == (row["sha256"], row["size_bytes"]), "listed part")
            listed.append(row["key"])
        return listed

    def chain(self, dataset: str, place: str, begin: int) -> list[str]:
        """Section 5, Chains: the pieces from a position on that reach farthest."""
        best: dict[str, tuple[int, tuple[int, int], list[str]]] = {}
        pieces = [name for name in self.stream(dataset, "wal") if name.startswith(place)]
        for name in sorted(pieces, key=lambda name: self.headers[name]["first"], reverse=True):
            header = self.headers[name]
            following = [
                best[other] for other in pieces
                if other in best and self.headers[other]["first"] == header["last"]
                and self.headers[other]["previous"] == self.digests[name]
            ]  # fmt: skip
            end, _, rest = max(following, key=lambda row: row[:2], default=(int(header["last"], 16), (0, 0), []))
            best[name] = (end, (header["writer_epoch"], -int(name[-32:], 16)), [name, *rest])
        first = [best[name] for name in pieces if int(self.headers[name]["first"], 16) == begin]
        return max(first, key=lambda row: row[:2])[2] if first else []

    def full(self, name: str) -> list[str]:
        """Section 5, Full segments: the micro-segments it holds, by its list; their bytes, where they are there."""
        header, place = self.headers[name], name.rpartition("/")[0].replace("/full/", "/wal/") + "/"
        lists = [self.body(other) for other in self.stream(header["dataset"], "full-list")]
        listed = next(body for body in lists if body["full"] == name)
        require(listed["full_header"] == self.digests[name], "the full's header")
        micros = [place + tail for tail, _ in listed["micros"]]
        digest = hashlib.sha256("".join(f"{micro}\n" for micro in micros).encode()).hexdigest()
        extra = header["extra"]
        require((extra["micro_keys_sha256"], extra["micro_count"]) == (digest, str(len(micros))), "micro-segments")
        at, plaintext = 0, self.plaintexts[name]
        for micro, (tail, sha256) in zip(micros, listed["micros"], strict=True):
            size = int(tail[17:33], 16) - int(tail[:16], 16)
            require(hashlib.sha256(plaintext[at : at + size]).hexdigest() == sha256, "a slice of the full")
            require(self.plaintexts.get(micro, plaintext[at : at + size]) == plaintext[at : at + size], "a micro")
            at += size
        require(at == len(plaintext), "the full's size")
        return micros

    def checkpoint(self, estate: str) -> tuple[str, int, bytes]:
        """Section 9: origin, size and root of the newest checkpoint that one of ours signed."""
        for name in sorted((name for name in self.files if name.startswith(f"{estate}/log/checkpoint/")), reverse=True):
            text, _, signatures = self.read(name).decode().partition("\n\n")
            origin, size, root = text.split("\n")[:3]
            for line in signatures.splitlines():
                _, signed_by, encoded = line.split(" ")
                raw = base64.b64decode(encoded)
                for key in map(bytes.fromhex, self.public_keys):
                    if (
                        raw[:4] == hashlib.sha256(signed_by.encode() + b"\n\1" + key).digest()[:4]
                        and signed_by == origin
                    ):
                        Ed25519PublicKey.from_public_bytes(key).verify(raw[4:], text.encode() + b"\n")
                        require(int(name[-20:]) == int(size), "a checkpoint's name")
                        return origin, int(size), base64.b64decode(root)
        raise RefusedError("no checkpoint of ours")

    def leaves(self, estate: str) -> list[dict[str, Any]]:
        """Section 9: every leaf's statement, held to the tiles and to the checkpoint's root."""
        _, size, root = self.checkpoint(estate)
        entries = [entry for number in range(-(-size // WIDTH)) for entry in self._bundle(estate, number, size)]
        hashes = [hashlib.sha256(b"\0" + entry).digest() for entry in entries]
        require(tree(hashes) == root, "root")
        for level in range(8):
            count = size >> (8 * level)
            for number in range(-(-count // WIDTH)):
                mine = [tree(hashes[i << 8 * level : (i + 1) << 8 * level])
                        for i in range(number * WIDTH, min(count, (number + 1) * WIDTH))]  # fmt: skip
                require(self._tile(estate, str(level), number, count) == b"".join(mine), "a tile")
        return [self._statement(entry) for entry in entries]

    def _tile(self, estate: str, level: str, number: int, count: int) -> bytes:
        width = min(WIDTH, count - number * WIDTH)
        groups = re.findall("...", f"{number:0{-(-len(str(number)) // 3) * 3}d}")
        path = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
        return self.read(f"{estate}/log/tile/{level}/{path}" + ("" if width == WIDTH else f".p/{width}"))

    def _bundle(self, estate: str, number: int, size: int) -> Iterator[bytes]:
        data, at = self._tile(estate, "entries", number, size), 0
        while at < len(data):
            end = at + 2 + int.from_bytes(data[at : at + 2], "big")
            yield data[at + 2 : end]
            at = end

    def _statement(self, entry: bytes) -> dict[str, Any]:
        return self.dsse(entry, "application/vnd.in-toto+json")

    def dsse(self, data: bytes, payload_type: str) -> dict[str, Any]:
        """A DSSE envelope's payload, signed by one of ours."""
        envelope = parse(data)
        payload, (signed,) = base64.b64decode(envelope["payload"]), envelope["signatures"]
        require(envelope["payloadType"] == payload_type, "payload type")
        message = f"DSSEv1 {len(payload_type)} {payload_type} {len(payload)} ".encode() + payload
        verify(self.public_keys, signed["keyid"], base64.b64decode(signed["sig"]), message)
        return parse(payload)


def tree(hashes: list[bytes]) -> bytes:
    """RFC 6962: the root over leaf hashes."""
    if len(hashes) <= 1:
        return hashes[0] if hashes else hashlib.sha256(b"").digest()
    split = 1 << (len(hashes) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + tree(hashes[:split]) + tree(hashes[split:])).digest()


def main(vault: str, keys: str, trust: str) -> None:
    """Open all of it, and say how much that was."""
    keks = [bytes.fromhex(path.read_text().strip()) for path in sorted(Path(keys).glob("kek-*.hex"))]
    folder = Folder(Path(vault), keks, [row["public_key"] for row in json.loads(Path(trust).read_text())["signers"]])
    for name in folder.headers:
        if name.split("/")[2] == "base":
            folder.parts(name)
        if name.split("/")[2] == "full":
            folder.full(name)
    for estate in sorted({name.split("/")[0] for name in folder.names}):
        logged = len(folder.leaves(estate)) if any(name.startswith(f"{estate}/log/") for name in folder.files) else 0
        size = sum(map(len, folder.plaintexts.values()))
        sys.stdout.write(f"{estate}: {len(folder.headers)} objects, {size} bytes of plaintext, {logged} leaves\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
