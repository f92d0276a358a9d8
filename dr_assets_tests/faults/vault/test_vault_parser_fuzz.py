"""The format's parsers against hostile bytes: no crash, no hang, no unbounded memory."""

from hypothesis import HealthCheck, given, settings

from dr_assets_tests.faults.vault.hostile import attack, attacks


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(attacks())
def test_hostile_bytes_are_refused_or_read(data: bytes) -> None:
    """A VaultError with a hint or a result, within 24 MiB; `make fuzz` goes on for longer."""
    attack(data)
