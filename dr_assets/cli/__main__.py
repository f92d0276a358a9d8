"""`python -m dr_assets.cli`: the command line for children that must run under this very interpreter."""

from dr_assets.cli import main

main()
