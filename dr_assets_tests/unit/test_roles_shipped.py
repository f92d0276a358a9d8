"""What is shipped of the roles is what the table makes: the page, the templates, and the module that fills them in."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dr_assets.vault.roles.table import shipped, with_matrix

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "infra" / "terraform" / "vault"


def test_the_page_holds_the_matrix_of_today() -> None:
    """A call or a right that changes is on the page, or this is red: run scripts/render_roles.py."""
    page = (ROOT / "docs" / "roles.md").read_text()
    assert with_matrix(page) == page
    assert page.count("| PutObject |") > 5


def test_the_templates_are_those_that_the_table_makes() -> None:
    """The module's policies and the code say the same, file by file, and no file is left over."""
    found = {path.name: path.read_text() for path in (MODULE / "policies").iterdir()}
    assert found == shipped()
    assert {"writer.json", "expirer.json", "bucket.json", "replicator-at-source.json"} <= set(found)


MIRROR = """provider_installation {
  filesystem_mirror {
    path = "%s"
  }
}
"""


def provider_config(folder: Path) -> dict[str, str]:
    """Settings under which `init` takes the provider from a mirror on this machine, where one is to be found."""
    roots = [Path(os.environ.get("TF_PLUGIN_MIRROR", "/nowhere")), *Path("/opt").glob("*")]
    mirrors = [root for root in roots if (root / "registry.terraform.io/hashicorp/aws").is_dir()]
    settings = folder / "terraform.rc"
    settings.write_text((MIRROR % mirrors[0] if mirrors else "") + "disable_checkpoint = true\n")
    return {**os.environ, "TF_CLI_CONFIG_FILE": str(settings), "TF_IN_AUTOMATION": "1"}


@pytest.mark.integration
def test_terraform_fills_them_in(requires: Callable[..., None], tmp_path: Path) -> None:
    """The module's own tests pass with a mocked provider: bucket locked, writer without deletion, duties apart."""
    requires("terraform")
    module = tmp_path / "vault"
    shutil.copytree(MODULE, module, ignore=shutil.ignore_patterns(".terraform*"))

    environment, program = provider_config(tmp_path), str(shutil.which("terraform"))

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, *args], cwd=module, env=environment, capture_output=True, text=True, timeout=240, check=False
        )

    assert run("fmt", "-check", "-diff").stdout == ""
    if run("init", "-input=false", "-no-color").returncode != 0:
        pytest.skip("no AWS provider for Terraform can be had here: neither a mirror nor a network")
    for verb in ("validate", "test"):
        done = run(verb, "-no-color")
        assert done.returncode == 0, done.stdout + done.stderr
