#!/bin/sh
# Puts the EVM chain `anvil` where the tests of anchors look for it: a folder of the user's cache. Wants npm.
# Without npm those tests are skipped, and say so.
set -eu
version=1.7.1
folder="${XDG_CACHE_HOME:-$HOME/.cache}/dr-assets/anvil-$version"
program="$folder/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil"
if [ -x "$program" ]; then
    exit 0
fi
if ! command -v npm >/dev/null || [ "$(uname -sm)" != "Linux x86_64" ]; then
    echo "no npm for Linux on x86_64 here: the tests of anchors will be skipped" >&2
    exit 0
fi
mkdir -p "$folder"
# The program lies in the package itself, so no script of it has to run.
npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$folder" "@foundry-rs/anvil-linux-amd64@$version" >/dev/null
[ -x "$program" ]
