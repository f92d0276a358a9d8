"""Disaster recovery as Dagster assets: backups whose freshness is their RPO, and that count only once restored."""
