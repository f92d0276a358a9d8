"""The policy as data: datasets, tiers, objectives, retention, drills. Pure; everything above reads it."""
