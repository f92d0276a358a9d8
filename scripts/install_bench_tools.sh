#!/bin/sh
# Installs what `make bench-postgres` compares with: pgBackRest and Postgres 15 of Debian 12, barman's cloud programs.
# Wants root and apt. Tests and CI need none of it. $1 is the folder for barman's virtual environment: the engine's
# unprivileged user must be able to run it, so neither the folder nor its interpreter may lie below root's home.
set -eu
export DEBIAN_FRONTEND=noninteractive
folder=${1:-/var/tmp/dr-assets-bench-tools}
here=$(dirname "$0")
if ! command -v apt-get >/dev/null; then
    echo "no apt-get here: install PostgreSQL 15, pgBackRest and barman-cloud by other means" >&2
    exit 1
fi
sh "$here/install_test_engines.sh"
missing=""
command -v pgbackrest >/dev/null || missing="$missing pgbackrest"
/usr/bin/python3 -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
if [ -n "$missing" ]; then
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of package names
    apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi
if [ ! -x "$folder/bin/barman-cloud-backup" ]; then
    # Debian's own barman is of 2023. Without dependencies, since it asks for a psycopg2 that wants a compiler.
    /usr/bin/python3 -m venv "$folder"
    "$folder/bin/pip" install --quiet boto3 lz4 python-dateutil psycopg2-binary
    "$folder/bin/pip" install --quiet --no-deps barman==3.19.1
fi
pgbackrest version
"$folder/bin/barman-cloud-backup" --version
