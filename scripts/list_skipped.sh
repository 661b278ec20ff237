#!/usr/bin/env bash
# list_skipped.sh BUILD_DIR: prints each test that the last ctest run skipped, with its reason.
set -euo pipefail
log=$1/Testing/Temporary/LastTest.log
[ -f "$log" ] || exit 0
awk '
  /: Skipped$/ { getline reason; next }
  /^\[  SKIPPED \] .* \([0-9]+ ms\)$/ {
    if (!count++) print "Skipped, with the reason:"
    printf "  %s: %s\n", $4, reason
  }' "$log"
