import re
import zlib

from dr_assets.casino.kyc import documents


def test_each_player_has_two_documents_that_open() -> None:
    """A PNG whose data fits its size, a PDF whose table points at its objects, under the player's own folder."""
    picture, page = documents([7])
    assert (picture.name, page.name) == ("players/7/passport.png", "players/7/proof-of-address.pdf")
    assert picture.content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = (int.from_bytes(picture.content[at : at + 4]) for at in (16, 20))
    begin = picture.content.index(b"IDAT")
    length = int.from_bytes(picture.content[begin - 4 : begin])
    assert len(zlib.decompress(picture.content[begin + 4 : begin + 4 + length])) == height * (width + 1)
    places = re.findall(rb"(\d{10}) 00000 n", page.content)
    assert [page.content[int(at) :][:7] for at in places] == [f"{n} 0 obj".encode() for n in range(1, 5)]
    table = int(page.content.rpartition(b"startxref\n")[2].split()[0])
    assert page.content[table:].startswith(b"xref\n")


def test_the_same_seed_makes_the_same_bytes() -> None:
    """A record of what was put can be made anew; another seed or another player makes others."""
    first, again, other = (list(documents(range(1, 4), seed)) for seed in (1, 1, 2))
    assert first == again
    assert len({each.sha256 for each in [*first, *other]}) == 12
