import pytest

from dr_assets.stores.postgres.crc32c import crc32c_hex


@pytest.mark.parametrize(
    ("data", "crc"),
    [(b"", 0x00000000), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E)],
)
def test_known_values(data: bytes, crc: int) -> None:
    """The examples of RFC 3720 come out, in the order of bytes that PostgreSQL's manifest shows."""
    assert crc32c_hex(data) == crc.to_bytes(4, "little").hex()
