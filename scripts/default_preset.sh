#!/usr/bin/env bash
# Prints the preset that suits this machine: cuda where nvcc 12.4 or newer is found, else cpu.
set -euo pipefail
release=$(nvcc --version 2> /dev/null | sed -n 's/.*release \([0-9.]*\),.*/\1/p' || true)
if [ -n "$release" ] && [ "$(printf '12.4\n%s\n' "$release" | sort --version-sort | head -1)" = 12.4 ]; then
  echo cuda
else
  echo cpu
fi
