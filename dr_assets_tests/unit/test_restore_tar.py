import io
import tarfile
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dr_assets.estate.errors import VaultError
from dr_assets.stores.postgres.tar import BLOCK_BYTES, Member, TarReader, parse_member


@dataclass
class Kept:
    """A sink that keeps everything."""

    members: list[tuple[Member, bytes]] = field(default_factory=list)
    _member: Member | None = None
    _data: bytes = b""

    def begin(self, member: Member) -> None:
        """Note the member."""
        assert self._member is None
        self._member, self._data = member, b""

    def data(self, piece: memoryview) -> None:
        """Keep a piece."""
        self._data += bytes(piece)

    def end(self) -> None:
        """Keep the whole member."""
        assert self._member is not None
        self.members.append((self._member, self._data))
        self._member = None


def archive(files: dict[str, bytes], *, trailer: bool = True) -> bytes:
    """A tar archive of one folder and `files`, with or without the two empty blocks at its end."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        folder = tarfile.TarInfo("base")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o700
        tar.addfile(folder)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o640
            tar.addfile(info, io.BytesIO(data))
        end = out.tell()
    return out.getvalue() if trailer else out.getvalue()[:end]


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["base/1/1", "PG_VERSION", "base/1/2", "x"]), st.binary(max_size=3000)),
    st.lists(st.integers(1, 1500), min_size=1, max_size=8),
    st.booleans(),
)
def test_members_come_out_as_they_went_in_however_the_stream_is_cut(
    files: dict[str, bytes], cuts: list[int], trailer: bool
) -> None:
    """Any cutting of the stream yields the same members with the same bytes, with and without the end blocks."""
    data, kept = archive(files, trailer=trailer), Kept()
    reader = TarReader("base.tar", kept)
    position, step = 0, 0
    while position < len(data):
        size = cuts[step % len(cuts)]
        reader.feed(data[position : position + size])
        position, step = position + size, step + 1
    reader.close()
    assert kept.members[0][0].kind == "directory"
    assert {str(m.path): d for m, d in kept.members[1:]} == files
    assert all(m.mode == 0o640 for m, _ in kept.members[1:])


def test_a_cut_archive_is_refused() -> None:
    """An archive that ends inside a member is an error, not a shorter database."""
    data = archive({"base/1/1": bytes(2000)}, trailer=False)
    for size in (len(data) - 1, len(data) - BLOCK_BYTES, len(data) - 2000, 700):
        reader = TarReader("base.tar", Kept())
        reader.feed(data[:size])
        with pytest.raises(VaultError, match="ends inside a member"):
            reader.close()


def test_a_member_of_more_than_8_gib_is_understood() -> None:
    """Sizes beyond octal's reach are binary, as PostgreSQL writes them."""
    info = tarfile.TarInfo("base/1/1")
    info.size = 9 << 30
    member = parse_member(info.tobuf(format=tarfile.GNU_FORMAT), "base.tar")
    assert member.size_bytes == 9 << 30


@pytest.mark.parametrize("name", ["/etc/passwd", "base/../../x", ".."])
def test_a_member_that_leads_elsewhere_is_refused(name: str) -> None:
    """No name in an archive reaches outside the data directory."""
    info = tarfile.TarInfo(name)
    with pytest.raises(VaultError, match="leads out"):
        parse_member(info.tobuf(format=tarfile.USTAR_FORMAT), "base.tar")


def test_a_damaged_header_is_refused() -> None:
    """A flipped byte in a header, and bytes that are no header at all, are named."""
    head = bytearray(tarfile.TarInfo("PG_VERSION").tobuf(format=tarfile.USTAR_FORMAT))
    assert parse_member(bytes(head), "base.tar").path == PurePosixPath("PG_VERSION")
    head[3] ^= 1
    with pytest.raises(VaultError, match="wrong checksum"):
        parse_member(bytes(head), "base.tar")
    with pytest.raises(VaultError):
        TarReader("base.tar", Kept()).feed(b"\xff" * BLOCK_BYTES)
