import subprocess
import sys

import pytest
from typer.testing import CliRunner

from dr_assets.cli.app import VERBS, app
from dr_assets.cli.lazy import Verb, load

_LISTING = """
import sys
from typer.testing import CliRunner
from dr_assets.cli.app import app
assert CliRunner().invoke(app, ["--help"]).exit_code == 0
print(*sorted(sys.modules), sep="\\n")
"""


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_what_the_listing_says_of_a_verb_is_what_the_verb_says_of_itself(verb: Verb) -> None:
    """The help beside a name never drifts from the docstring of what the name runs."""
    assert load(verb).get_short_help_str(limit=500) == verb.help


def test_the_listing_imports_no_verb() -> None:
    """`dr-assets --help`, and so every start, pays for none of the verbs' drivers."""
    shown = subprocess.run([sys.executable, "-c", _LISTING], capture_output=True, text=True, check=True)
    loaded = set(shown.stdout.split())
    assert not loaded & {"boto3", "psycopg", "dagster", "pyarrow", "kafka", "pydantic"}
    assert {name for name in loaded if name.startswith("dr_assets.cli.")} == {
        "dr_assets.cli.app",
        "dr_assets.cli.lazy",
    }


def test_a_verb_in_a_group_shows_its_own_help() -> None:
    """Deferring stops at nothing below: `vault verify --help` is the page of that command, options and all."""
    shown = CliRunner().invoke(app, ["vault", "verify", "--help"], prog_name="dr-assets")
    assert shown.exit_code == 0
    assert "Usage: dr-assets vault verify" in shown.stdout
    assert "--level" in shown.stdout
