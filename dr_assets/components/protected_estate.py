"""The component `ProtectedEstate`: what all datasets share, from vaults to alerts.

What belongs here: putting the parts together. What stays out: the parts, and the policy's rules (estate/).
"""

from pathlib import Path
from typing import Self

import dagster as dg
from pydantic import BaseModel

from dr_assets.components.alerts import alerts_sensor
from dr_assets.components.coverage import KEY as COVERAGE
from dr_assets.components.coverage import coverage_asset, coverage_schedule
from dr_assets.components.drill import KEY as DRILL
from dr_assets.components.drill import drill_asset, drill_due_sensor, drill_schedules
from dr_assets.components.parts import Parts, job_of
from dr_assets.components.recovery_point import recovery_point_parts
from dr_assets.components.vault_checkpoint import checkpoint_parts
from dr_assets.components.vault_keeping import keeping_parts
from dr_assets.components.vault_key_rotation import key_rotation_parts
from dr_assets.components.vault_replication import replication_parts
from dr_assets.components.vault_resource import resource_key, vault_resource
from dr_assets.components.vault_verification import verification_parts
from dr_assets.estate.declarations import EstateDeclaration, load_estate
from dr_assets.estate.model import Estate


class ProtectedEstate(dg.Component):
    """The estate: its licence, vaults, keys and alerts; the drill and the search for undeclared databases."""

    def __init__(self, estate: Estate, defs_dir: Path) -> None:
        self.estate = estate
        self.defs_dir = defs_dir

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """The estate's own schema, so that editor, `dg check yaml` and the command line ask for the same."""
        return EstateDeclaration

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        """Judge the whole estate; raises `PolicyError` with every finding."""
        del attributes
        return cls(load_estate(context.path.parent), context.path.parent)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Vault resources, the estate's assets, `drill_due` and `alerts`. Reads no environment variable."""
        del context
        estate = self.estate
        drill = job_of("estate_drill", DRILL, "Drills the recovery and measures RTO and RPO.")
        coverage = job_of("estate_coverage", COVERAGE, "Looks for what no dataset declares.")
        own = Parts(
            assets=[coverage_asset(estate), drill_asset(estate)],
            jobs=[drill, coverage],
            schedules=[coverage_schedule(coverage), *drill_schedules(estate, drill)],
            sensors=[drill_due_sensor(estate, drill), alerts_sensor(estate)],
        )
        parts = own + replication_parts(estate) + checkpoint_parts(estate) + key_rotation_parts(estate)
        parts += keeping_parts(estate, self.defs_dir) + verification_parts(estate) + recovery_point_parts(estate)
        return parts.definitions(
            {resource_key(name): vault_resource(place, self.defs_dir) for name, place in estate.vaults.items()}
        )
