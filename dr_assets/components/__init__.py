"""One YAML stanza makes a whole recovery chain: assets, checks, sensors, schedules. Dagster lives here only."""
