#!/usr/bin/env bash
# Builds Sluice and runs its tests; needs nothing but git and bash to be installed. Where nvcc is found the CUDA device
# is built too, and its tests run where there is a GPU.
#   bash scripts/test.sh [--long] [ctest arguments...]
# --long adds the tests labelled `long` and lets every fuzz target run 30 s from a fresh seed.
# Example: bash scripts/test.sh -R kv_cache --output-on-failure
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

long=
arguments=()
for argument in "$@"; do
  case "$argument" in
    --long)
      long=-long
      export SLUICE_FUZZ_SECONDS=${SLUICE_FUZZ_SECONDS:-30} SLUICE_FUZZ_SEED=${SLUICE_FUZZ_SEED:-$RANDOM}
      ;;
    -h | --help) sed -n '2,6s/^# //p' "$0"; exit 0 ;;
    *) arguments+=("$argument") ;;
  esac
done

preset=$(bash scripts/default_preset.sh)
bash scripts/build.sh "$preset"
tests=$preset
if [ "$preset" = cuda ]; then
  case "$("build/cuda/apps/sluice" --version)" in
    *"cuda: none"*) tests=cuda-host; echo "No GPU here: the tests labelled gpu are left out." ;;
    *) tests=cuda-all ;;
  esac
fi
status=0
ctest --preset "$tests$long" --parallel "$(nproc)" "${arguments[@]}" || status=$?
bash scripts/list_skipped.sh "build/$preset"
exit "$status"
