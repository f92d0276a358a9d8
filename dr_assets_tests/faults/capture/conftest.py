"""The fixtures of the capture's integration tests, for the tests that kill."""

import importlib.util
import sys
from pathlib import Path

_NAME = "capture_fixtures"
if _NAME not in sys.modules:
    _SPEC = importlib.util.spec_from_file_location(
        _NAME, Path(__file__).parents[2] / "integration" / "capture" / "conftest.py"
    )
    assert _SPEC is not None
    assert _SPEC.loader is not None
    sys.modules[_NAME] = importlib.util.module_from_spec(_SPEC)
    _SPEC.loader.exec_module(sys.modules[_NAME])

_FIXTURES = sys.modules[_NAME]
rig = _FIXTURES.rig
keys_dir = _FIXTURES.keys_dir
memory_vault = _FIXTURES.memory_vault
place = _FIXTURES.place
slots = _FIXTURES.slots
