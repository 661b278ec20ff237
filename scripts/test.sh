#!/usr/bin/env bash
# Builds Sluice and runs its tests; needs nothing but git and bash to be installed.
#   bash scripts/test.sh [--long] [ctest arguments...]
# --long adds the tests labelled `long` and lets every fuzz target run 30 s from a fresh seed.
# Example: bash scripts/test.sh -R kv_cache --output-on-failure
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

preset=cpu
arguments=()
for argument in "$@"; do
  case "$argument" in
    --long)
      preset=cpu-long
      export SLUICE_FUZZ_SECONDS=${SLUICE_FUZZ_SECONDS:-30} SLUICE_FUZZ_SEED=${SLUICE_FUZZ_SEED:-$RANDOM}
      ;;
    -h | --help) sed -n '2,5s/^# //p' "$0"; exit 0 ;;
    *) arguments+=("$argument") ;;
  esac
done

bash scripts/build.sh cpu
status=0
ctest --preset "$preset" --parallel "$(nproc)" "${arguments[@]}" || status=$?
bash scripts/list_skipped.sh build/cpu
exit "$status"
