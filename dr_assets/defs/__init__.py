"""The estate as declared: a folder a dataset, each with its defs.yaml. No code belongs here."""
