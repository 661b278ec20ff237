#!/usr/bin/env bash
# Installs the Debian/Ubuntu packages that Sluice is built from, and nothing else. Does nothing when all are
# present. Asks for sudo when not root.
#   bash scripts/setup.sh [--lint]       --lint adds clang, clang-format and clang-tidy
set -euo pipefail

packages=(
  g++ cmake ninja-build pkg-config git ccache
  liburing-dev libyaml-cpp-dev libboost-dev libcli11-dev nlohmann-json3-dev
  libspdlog-dev libfmt-dev libhwy-dev libpcre2-dev libxxhash-dev
  libgtest-dev libgmock-dev libbenchmark-dev
  libjs-chart.js
)
case "${1:-}" in
  "") ;;
  --lint) packages+=(clang clang-format clang-tidy) ;;
  *) echo "usage: bash scripts/setup.sh [--lint]" >&2; exit 2 ;;
esac

if ! command -v dpkg-query > /dev/null || ! command -v apt-get > /dev/null; then
  echo "setup: this is not Debian or Ubuntu; install the equivalents of: ${packages[*]}" >&2
  exit 1
fi

missing=()
for package in "${packages[@]}"; do
  state=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2> /dev/null || true)
  [ "$state" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
  echo "setup: all ${#packages[@]} packages are installed"
  exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo > /dev/null || { echo "setup: run as root: apt-get install ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi
echo "setup: installing ${#missing[@]} packages: ${missing[*]}"
"${as_root[@]}" apt-get update --quiet=2
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
  apt-get install --yes --quiet=2 --no-install-recommends "${missing[@]}" < /dev/null
