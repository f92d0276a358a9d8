"""Write what is shipped of the roles: the matrix in docs/roles.md, the policy templates of infra/terraform/vault.

What belongs here: writing files. What stays out: their content (dr_assets/vault/roles/).
"""

from pathlib import Path
from typing import Final

from dr_assets.vault.roles.table import shipped, with_matrix

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = ROOT / "docs" / "roles.md"
POLICIES: Final = ROOT / "infra" / "terraform" / "vault" / "policies"


def main() -> None:
    """Overwrite them."""
    PAGE.write_text(with_matrix(PAGE.read_text()))
    POLICIES.mkdir(parents=True, exist_ok=True)
    for name, text in shipped().items():
        (POLICIES / name).write_text(text)


if __name__ == "__main__":
    main()
