import pytest

from dr_assets.estate.errors import PolicyError
from dr_assets.stores.postgres.dsn import describe_dsn, masked, parse_dsn, replication_dsn, require_safe_transport
from dr_assets.stores.postgres.lsn import format_lsn, parse_lsn

SECRET = "s3cr3t w0rd"


def test_what_is_said_about_a_dsn_holds_no_password() -> None:
    """Describing a DSN, or masking what a server said, never shows the password, percent-encoded or not."""
    dsn = "postgresql://app:s3cr3t%20w0rd@db.example:6000/ledger?sslmode=verify-full"
    assert describe_dsn(dsn) == "app@db.example:6000/ledger"
    assert SECRET not in masked(f'option "{SECRET}" is\n wrong', dsn)


@pytest.mark.parametrize(
    "dsn", [f"host=x password={SECRET}", f"postgresql://u:{SECRET}@h:notaport/db", "postgresql://["]
)
def test_an_unreadable_dsn_is_refused_without_quoting_it(dsn: str) -> None:
    """Libpq quotes the piece it stumbled over, which may be half a password: we say nothing of it."""
    with pytest.raises(PolicyError) as refused:
        parse_dsn(dsn)
    assert refused.value.code == "source.dsn_unreadable"
    assert "s3cr3t" not in str(refused.value)
    assert "w0rd" not in str(refused.value)
    assert refused.value.__suppress_context__


@pytest.mark.parametrize(
    "dsn",
    [
        "host=127.0.0.1 dbname=x",
        "host=::1",
        "host=/var/run/postgresql",
        "postgresql:///x",
        "postgresql://u@db.example/x?sslmode=require",
        "postgresql://u@db.example/x?sslmode=verify-full",
    ],
)
def test_loopback_and_tls_may_carry_wal(dsn: str) -> None:
    """Loopback, sockets and promised TLS pass."""
    require_safe_transport(dsn)


@pytest.mark.parametrize(
    "dsn",
    [
        "host=db.example",
        "postgresql://u@db.example/x?sslmode=prefer",
        "postgresql://u@db.example/x?sslmode=allow",
        "host=127.0.0.1,db.example",
        "host=localhost hostaddr=10.0.0.1",
        "service=prod",
    ],
)
def test_plaintext_over_a_network_is_refused(dsn: str) -> None:
    """Modes that fall back to plaintext are no TLS, and one remote host among several is enough to refuse."""
    with pytest.raises(PolicyError, match=r"source\.no_tls"):
        require_safe_transport(dsn)


def test_a_host_from_the_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A DSN without a host goes where PGHOST says, and that is judged."""
    monkeypatch.setenv("PGHOST", "db.example")
    with pytest.raises(PolicyError, match=r"source\.no_tls"):
        require_safe_transport("dbname=x")
    require_safe_transport("host=127.0.0.1 dbname=x")


def test_a_replication_connection_goes_to_the_same_server() -> None:
    """Everything of the DSN is kept; replication and a name are added."""
    settings = parse_dsn(
        replication_dsn("postgresql://u:p@127.0.0.1:7/x?sslmode=require", application_name="cap", connect_timeout_s=3)
    )
    assert settings["replication"] == "true"
    assert settings["tcp_user_timeout"] == "20000"
    assert settings["application_name"] == "cap"
    assert (settings["host"], settings["port"], settings["password"]) == ("127.0.0.1", "7", "p")
    assert settings["sslmode"] == "require"


@pytest.mark.parametrize(
    ("text", "position"), [("0/0", 0), ("16/B374D848", 0x16B374D848), ("FFFFFFFF/1", 0xFFFFFFFF00000001)]
)
def test_an_lsn_is_read_and_written_as_postgresql_does(text: str, position: int) -> None:
    """Text and position are two forms of one LSN."""
    assert parse_lsn(text) == position
    assert format_lsn(position) == text


@pytest.mark.parametrize("text", ["", "0", "0/", "G/0", "0/123456789", "0/0/0", "-1/0"])
def test_anything_else_is_no_lsn(text: str) -> None:
    """An unreadable LSN is an error of the source, not a position."""
    with pytest.raises(Exception, match=r"wal\.lsn_unreadable"):
        parse_lsn(text)
