"""Recognising database services that keep the replication protocol to themselves.

What belongs here: the traces by which such a service is known. What stays out: the verdict (preflight.py), which
also wants the replication connection to have been refused: roles travel with a dump to servers that are free.
"""

from dr_assets.stores.postgres.session import Connection

_TRACES = """
SELECT (SELECT array_agg(rolname::text) FROM pg_roles WHERE rolname = ANY(%(roles)s)),
       (SELECT array_agg(DISTINCT split_part(name, '.', 1)) FROM pg_settings
        WHERE split_part(name, '.', 1) = ANY(%(prefixes)s))
"""
_ROLES = {
    "rdsadmin": "Amazon RDS or Aurora",
    "cloudsqladmin": "Google Cloud SQL",
    "cloudsqlsuperuser": "Google Cloud SQL",
    "alloydbadmin": "Google AlloyDB",
    "alloydbsuperuser": "Google AlloyDB",
    "azuresu": "Azure Database for PostgreSQL",
    "azure_pg_admin": "Azure Database for PostgreSQL",
    "neon_superuser": "Neon",
    "supabase_admin": "Supabase",
    "doadmin": "DigitalOcean Managed PostgreSQL",
    "avnadmin": "Aiven for PostgreSQL",
}
_SETTING_PREFIXES = {
    "rds": "Amazon RDS or Aurora",
    "cloudsql": "Google Cloud SQL",
    "alloydb": "Google AlloyDB",
    "azure": "Azure Database for PostgreSQL",
    "neon": "Neon",
}


def managed_service(connection: Connection) -> str | None:
    """The database service that this server shows the traces of, None for one that shows none.

    A server may carry such a name by accident, so a trace alone is no verdict. Raises psycopg.Error.
    """
    row = connection.execute(_TRACES, {"roles": list(_ROLES), "prefixes": list(_SETTING_PREFIXES)}).fetchone()
    roles, prefixes = row or (None, None)
    found = [_SETTING_PREFIXES[name] for name in _names(prefixes)] + [_ROLES[name] for name in _names(roles)]
    return found[0] if found else None


def _names(value: object) -> list[str]:
    return [str(name) for name in value] if isinstance(value, list) else []
