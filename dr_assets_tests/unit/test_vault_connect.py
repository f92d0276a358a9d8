"""Opening a vault from the environment: what is refused before a request could leave the host."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dr_assets.estate.declarations import default_defs_dir, load_estate
from dr_assets.estate.errors import PolicyError
from dr_assets.estate.model import Estate
from dr_assets.vault.connect import CA_ENV, init_vault, open_vault

Attempt = Callable[[dict[str, str]], object]


@pytest.fixture
def estate() -> Estate:
    """The packaged one."""
    return load_estate(default_defs_dir()).only("ledger")


@pytest.fixture
def env(estate: Estate, tmp_path: Path) -> dict[str, str]:
    """All that the declarations name; nobody listens at the endpoint."""
    place = estate.vaults["primary"]
    return {
        place.endpoint_env: "https://s3.example.net",
        place.access_key_env: "access",
        place.secret_key_env: "do-not-print",
        estate.keys_dir_env: str(tmp_path / "keys"),
        estate.trust_file_env: str(tmp_path / "trust.json"),
        estate.signing_key_env: str(tmp_path / "signing.pem"),
    }


def refusal(attempt: Callable[[], object]) -> PolicyError:
    """Why it is refused; no secret in it."""
    with pytest.raises(PolicyError) as caught:
        attempt()
    assert "do-not-print" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("verb", [open_vault, init_vault])
@pytest.mark.parametrize(
    ("endpoint", "code"),
    [
        ("http://s3.example.net", "policy.transport"),
        ("HTTP://10.0.0.5:9000", "policy.transport"),
        ("http://127.0.0.1.example.net", "policy.transport"),
        ("postgresql://s3.example.net?sslmode=require", "vault.bad_endpoint"),
        ("host=/tmp", "vault.bad_endpoint"),
        ("nowhere", "vault.bad_endpoint"),
    ],
)
def test_an_endpoint_in_the_open_is_refused_at_run_time(
    estate: Estate, env: dict[str, str], verb: Callable[..., object], endpoint: str, code: str
) -> None:
    """The declaration holds the variable's name alone, so each verb judges the value: TLS or loopback."""
    variable = estate.vaults["primary"].endpoint_env
    refused = refusal(lambda: verb(estate, "primary", env | {variable: endpoint}))
    assert refused.code == code
    assert variable in refused.found


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://[::1]:9", "https://s3.example.net"])
@pytest.mark.parametrize("ca", ["", None])
def test_loopback_and_tls_pass_and_an_empty_ca_is_none(
    estate: Estate, env: dict[str, str], endpoint: str, ca: str | None
) -> None:
    """Both get as far as the key files, which are not there yet; an empty variable means the system's authorities."""
    given = env | {estate.vaults["primary"].endpoint_env: endpoint} | ({} if ca is None else {CA_ENV: ca})
    assert refusal(lambda: open_vault(estate, "primary", given, signing=False)).code == "keys.no_trust_file"


def test_a_file_of_authorities_that_is_none_is_named(estate: Estate, env: dict[str, str], tmp_path: Path) -> None:
    """Absent, a folder, or without a certificate in it: told by the variable's name, not by a traceback later."""
    (tmp_path / "empty.pem").write_text("no certificate\n")
    for path in (tmp_path / "absent.pem", tmp_path, tmp_path / "empty.pem"):
        refused = refusal(lambda: open_vault(estate, "primary", env | {CA_ENV: str(path)}))  # noqa: B023 - called here
        assert refused.code == "vault.bad_ca"
        assert CA_ENV in refused.found
