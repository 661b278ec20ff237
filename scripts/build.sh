#!/usr/bin/env bash
# Installs what is missing, then configures and builds one preset; unchanged parts are not built again.
#   bash scripts/build.sh [PRESET=cpu] [cmake --build arguments...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

preset=${1:-cpu}
[ $# -eq 0 ] || shift
setup=()
[ "$preset" != tidy ] || setup=(--lint)
bash scripts/setup.sh "${setup[@]}"

launcher=()
for tool in sccache ccache; do
  if command -v "$tool" > /dev/null; then
    launcher=("-DCMAKE_CXX_COMPILER_LAUNCHER=$tool")
    break
  fi
done
export CCACHE_BASEDIR=$PWD  # so that a build folder elsewhere shares the cache

mkdir -p "build/$preset"
cmake --preset "$preset" "${launcher[@]}" > "build/$preset/configure.log" 2>&1 || {
  cat "build/$preset/configure.log" >&2
  exit 1
}
cmake --build --preset "$preset" "$@"
