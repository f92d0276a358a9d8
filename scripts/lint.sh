#!/bin/sh
# Style, types and layers, in the order of how fast they answer. $1 is the folder of the programs.
set -eu
bin=$1
"$bin/ruff" format --check --quiet .
"$bin/ruff" check --quiet .
"$bin/lint-imports" --no-cache
"$bin/mypy" --no-error-summary
