"""The probe of the resident prover: whether it lives, and what it has proven.

What belongs here: its newest sealed words, judged. What stays out: the rules (proving/prover/judged.py).
"""

from collections.abc import Iterator

from dr_assets.cli.doctor.line import Line
from dr_assets.cli.doctor.patient import Patient
from dr_assets.proving.prover.judged import reconciled_trouble, replayed_trouble
from dr_assets.proving.prover.points import latest_proven


def proven(patient: Patient) -> Iterator[Line]:
    """What `dr-assets prove` has replayed and reconciled, of a dataset that declares it."""
    dataset = patient.database
    if dataset.prove is None:
        return
    vault = patient.vault()
    newest, now = latest_proven(vault, dataset.name), vault.clock()
    hint = "is `dr-assets prove` running, and what does its journal say? docs/prover.md, When it is red"
    for check, trouble in (
        ("proven: replayed", replayed_trouble(dataset, newest, now)),
        ("proven: reconciled", reconciled_trouble(dataset, newest, now)),
    ):
        if trouble is not None:
            yield Line(check, "bad", trouble, hint)
        elif newest is not None:
            yield Line(check, "ok", str(newest))
