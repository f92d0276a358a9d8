#!/bin/sh
# Installs the system packages that some tests want (Postgres 15 of Debian 12, systemd-analyze, SoftHSM2, Java and Maven
# for Apache Kafka, kcat; chromium with --screenshots), and gets Apache Kafka's jars.
# Wants root and apt. Everything else that tests need comes as wheels.
set -eu
sh "$(dirname "$0")/install_anvil.sh"
export DEBIAN_FRONTEND=noninteractive
if ! command -v apt-get >/dev/null; then
    echo "no apt-get here: install PostgreSQL 15's server programs by other means" >&2
    exit 1
fi
missing=""
[ -x /usr/lib/postgresql/15/bin/postgres ] || missing="postgresql-15"
command -v systemd-analyze >/dev/null || missing="$missing systemd"
command -v softhsm2-util >/dev/null || missing="$missing softhsm2"
command -v openssl >/dev/null || missing="$missing openssl"
command -v kcat >/dev/null || missing="$missing kcat"
command -v java >/dev/null || missing="$missing openjdk-17-jre-headless"
command -v mvn >/dev/null || missing="$missing maven"
if [ "${1:-}" = "--screenshots" ] && ! command -v chromium >/dev/null; then
    missing="$missing chromium"
fi
if [ -n "$missing" ]; then
    apt-get update -qq
    # Debian would create and start a cluster of its own; the tests start theirs.
    apt-get install -y -qq --no-install-recommends postgresql-common >/dev/null
    sed -i 's/^#\?create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
    # shellcheck disable=SC2086 # a list of package names
    apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi
# Into the user's cache, once: a test worker that had to get them would keep the others waiting. Standard library only.
cd "$(dirname "$0")/.."
"${PYTHON:-python3}" -m dr_assets.engines.kafka.jars
