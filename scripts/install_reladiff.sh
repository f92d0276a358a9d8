#!/bin/sh
# Installs what `make bench-reconcile` compares with, in a virtual environment of its own ($1). Tests and CI need none of it.
set -eu
folder=${1:-/var/tmp/dr-assets-bench-reladiff}
if [ ! -x "$folder/bin/reladiff" ]; then
    "${PYTHON:-python3}" -m venv "$folder"
    "$folder/bin/pip" install --quiet "reladiff[postgresql]==0.6.0" psycopg2-binary
fi
"$folder/bin/pip" show reladiff | sed -n 2p
