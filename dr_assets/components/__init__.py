"""One YAML stanza makes a whole recovery chain: assets, checks, sensors, schedules. Dagster lives here only."""

from dr_assets.components.protected_estate import ProtectedEstate
from dr_assets.components.protected_postgres import ProtectedPostgres

__all__ = ["ProtectedEstate", "ProtectedPostgres"]
