#!/usr/bin/env bash
# Installs what is missing, then configures and builds one preset; unchanged parts are not built again.
#   bash scripts/build.sh [PRESET] [cmake --build arguments...]
# PRESET is one of CMakePresets.json: by default cuda where nvcc 12.4 or newer is found, else cpu.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

preset=${1:-$(bash scripts/default_preset.sh)}
[ $# -eq 0 ] || shift
setup=()
[ "$preset" != tidy ] || setup=(--lint)
bash scripts/setup.sh "${setup[@]}"

launcher=()
for tool in sccache ccache; do
  if command -v "$tool" > /dev/null; then
    launcher=("-DCMAKE_CXX_COMPILER_LAUNCHER=$tool" "-DCMAKE_CUDA_COMPILER_LAUNCHER=$tool")
    break
  fi
done
export CCACHE_BASEDIR=$PWD  # so that a build folder elsewhere shares the cache
export CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime  # what precompiled headers need

mkdir -p "build/$preset"
cmake --preset "$preset" "${launcher[@]}" > "build/$preset/configure.log" 2>&1 || {
  cat "build/$preset/configure.log" >&2
  exit 1
}
cmake --build --preset "$preset" "$@"
