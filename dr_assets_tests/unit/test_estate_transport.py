import pytest

from dr_assets.estate.errors import PolicyError
from dr_assets.estate.transport import require_tls


@pytest.mark.parametrize(
    "address",
    [
        "https://s3.gra.example.net",
        "http://127.0.0.1:8333",
        "http://[::1]:8333",
        "http://localhost:9000/path",
        "postgresql://app@db.example.net/ledger?sslmode=verify-full",
        "postgres://app@db.example.net/ledger?sslmode=require",
        "postgresql://app@127.0.0.1:5432/ledger",
        "postgresql:///ledger?host=/var/run/postgresql",
        "postgresql://app@a.example.net,b.example.net/ledger?sslmode=verify-ca",
        "host=127.0.0.1 port=5432 dbname=ledger",
        "dbname=ledger",
        r"host=/tmp password='a \' host=evil.example.net'",
    ],
)
def test_tls_or_loopback_passes(address: str) -> None:
    """TLS anywhere and plain text on loopback or a Unix socket are accepted in every form a client understands."""
    require_tls(address)


@pytest.mark.parametrize(
    "address",
    [
        "http://s3.gra.example.net",
        "http://127.0.0.1@s3.gra.example.net",
        "http://127.0.0.1.example.net",
        "http://localhost.example.net",
        "HTTP://10.0.0.1",
        "http://0.0.0.0:8333",
        "postgresql://app:s3cret@db.example.net/ledger",
        "postgresql://app@db.example.net/ledger?sslmode=prefer",
        "postgresql://app@localhost,db.example.net/ledger",
        "postgresql://app@localhost/ledger?host=db.example.net",
        "postgresql://app@localhost/ledger?hostaddr=10.0.0.1",
        "host=localhost hostaddr=10.0.0.1",
        "host = db.example.net",
        "ftp://127.0.0.1",
        "http://",
        "http://[broken",
        "host=db.example.net sslmode=verify-full password='it''s'",
        "127.0.0.1:8333",
        "",
        "s3cret",
    ],
)
def test_plain_text_off_the_host_is_refused(address: str) -> None:
    """Anything that may leave the host unencrypted, or that cannot be judged, raises and prints no secret."""
    with pytest.raises(PolicyError) as refused:
        require_tls(address, "LEDGER_DSN")
    assert refused.value.code == "policy.transport"
    assert "LEDGER_DSN" in str(refused.value)
    assert "s3cret" not in str(refused.value)
