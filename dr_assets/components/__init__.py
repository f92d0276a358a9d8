"""One YAML stanza makes a whole recovery chain: assets, checks, sensors, schedules. Dagster lives here only."""

from dr_assets.components.protected_bucket import ProtectedBucket
from dr_assets.components.protected_estate import ProtectedEstate
from dr_assets.components.protected_postgres import ProtectedPostgres
from dr_assets.components.protected_topics import ProtectedTopics

__all__ = ["ProtectedBucket", "ProtectedEstate", "ProtectedPostgres", "ProtectedTopics"]
