#!/usr/bin/env bash
# Lints what differs from a commit: clang-format on every changed source, clang-tidy on changed .cc files. Then
# builds the libraries with Clang (thread-safety analysis) and every header alone.
#   bash scripts/lint.sh [--all | BASE]     BASE is a commit; by default the one before HEAD
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/build.sh tidy

sources=('*.h' '*.cc' '*.cu' '*.cuh')
if [ "${1:-}" = --all ]; then
  mapfile -t changed < <(git ls-files -- "${sources[@]}")
else
  base=${1:-$(git rev-parse --verify --quiet HEAD~1 || git hash-object -t tree /dev/null)}
  mapfile -t changed < <({ git diff --name-only --diff-filter=d "$base" -- "${sources[@]}"
                           git ls-files --others --exclude-standard -- "${sources[@]}"; } | sort --unique)
fi
if [ ${#changed[@]} -eq 0 ]; then
  echo "lint: no changed sources"
  exit 0
fi

clang-format --dry-run -Werror "${changed[@]}"
# clang-tidy knows what the tidy preset compiles; the CUDA device is not among it.
mapfile -t units < <(printf '%s\n' "${changed[@]}" | grep '\.cc$' |
  while read -r unit; do ! grep -qF "$PWD/$unit\"" build/tidy/compile_commands.json || echo "$unit"; done)
echo "lint: ${#changed[@]} files are formatted; clang-tidy on ${#units[@]}"
[ ${#units[@]} -eq 0 ] ||
  printf '%s\n' "${units[@]}" | xargs --max-procs="$(nproc)" --max-args=4 clang-tidy -p build/tidy --quiet
echo "lint: passed"
