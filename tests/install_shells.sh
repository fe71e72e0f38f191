#!/usr/bin/env bash
# The shells whose completion is tested, if they are not there.
set -euo pipefail
missing=()
for shell in bash zsh fish; do
    command -v "$shell" > /dev/null || missing+=("$shell")
done
[ ${#missing[@]} -eq 0 ] && exit 0
apt-get update && apt-get install --yes --no-install-recommends "${missing[@]}"
