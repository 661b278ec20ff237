#!/usr/bin/env bash
# check_install.sh CMAKE BUILD_DIR WORK_DIR: installs, moves the folder, and checks that the programs in it run
# with an empty environment, need nothing of the system but glibc, libstdc++ and a toolkit's cuBLASLt, and stay
# below 30 MB, or 150 with kernels for GPUs, which each program holds.
set -euo pipefail
cmake=$1 build=$2 work=$3
fail() { echo "install: $*" >&2; exit 1; }

rm -rf "$work" && mkdir -p "$work"
"$cmake" --install "$build" --prefix "$work/first" --strip > "$work/install.log" || { cat "$work/install.log"; exit 1; }
mv "$work/first" "$work/moved"
cd "$work/moved"

for program in bin/*; do
  [ -x "$program" ] || fail "$program is not executable"
  readelf --sections --wide "$program" | grep -q '\.symtab' && fail "$program is not stripped"
  outside=$(env -i ldd "$program" | awk -v lib="$PWD/bin/../lib/" '
    /not found/ { print; next }
    $3 ~ /^\// && index($3, lib) != 1 && $1 !~ /^lib(c|m|dl|rt|pthread|mvec|stdc\+\+|gcc_s|cublasLt)\.so/ { print }')
  [ -z "$outside" ] || fail "$program needs libraries outside lib/ and the system:"$'\n'"$outside"
done

version=$(env -i bin/sluice --version) || fail "sluice --version failed"
case "$version" in *[0-9].[0-9]*) ;; *) fail "sluice --version printed '$version'" ;; esac

# Two tests of one name would run as one in the merged program.
names=$(env -i bin/sluice_tests --gtest_list_tests | awk '/^[^ ]/ { suite = $1; next } { print suite $1 }')
[ -n "$names" ] || fail "sluice_tests holds no tests"
twice=$(sort <<< "$names" | uniq --repeated)
[ -z "$twice" ] || fail "tests of the same name:"$'\n'"$twice"
env -i bin/sluice_tests --gtest_brief=1 --gtest_filter='Half.*:InstalledFiles.*'
env -i TMPDIR=/nowhere bin/sluice_tests --gtest_filter='InstalledFiles.*' > "$work/no_tmp" 2>&1 &&
  fail "tests passed without a place for their files"
grep -q 'set TMPDIR' "$work/no_tmp" || fail "no remedy for a missing TMPDIR in: $(cat "$work/no_tmp")"

# From wherever it lies, the GPU's checks find the programs beside them and go as far as the missing device.
if ! env -i bin/sluice --version | grep -q 'cuda:0'; then
  env -i PATH="$PATH" bash share/sluice/gpu-check.sh tests > "$work/gpu_check" 2>&1 && fail "gpu-check passed without a device"
  grep -q 'gpu-check: no device' "$work/gpu_check" || fail "gpu-check said: $(cat "$work/gpu_check")"
fi

limit_bytes=30000000
env -i bin/sluice --version | grep -q 'cuda: not in this build' || limit_bytes=150000000
bytes=$(du --summarize --bytes . | cut -f1)
[ "$bytes" -lt "$limit_bytes" ] || { du --bytes --all . | sort -n | tail -20; fail "$bytes bytes, limit $limit_bytes"; }
newest() { readelf --version-info --wide bin/* lib/*.so* | grep -oE "$1_[0-9.]+" | sort --version-sort --unique | tail -1; }
echo "install: $bytes bytes, $(wc -l <<< "$names") tests, needs $(newest GLIBC) and $(newest GLIBCXX)"
