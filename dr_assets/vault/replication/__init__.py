"""Replication: the second region, proven object by object, and a bundle for a place without any network.

What belongs here: what of a vault has to lie in another one (walk.py), whether it does (proof.py), bringing it there
(copying.py), what of that is remembered (remembered.py, standing.py), one pass over all of it (run.py), and the bundle.
What stays out: restoring, which reads a replica as it reads any vault; deleting, which no replicator does.
"""

from dr_assets.vault.replication.routes import Route, routes_of
from dr_assets.vault.replication.run import Options, Pass, replicate
from dr_assets.vault.replication.standing import Standing, standing

__all__ = ["Options", "Pass", "Route", "Standing", "replicate", "routes_of", "standing"]
