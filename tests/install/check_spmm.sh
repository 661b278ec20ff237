#!/usr/bin/env bash
# check_spmm.sh CMAKE BUILD_DIR WORK_DIR: installs, moves the folder, builds the C example of libsluice_spmm against
# it and runs it; where there is no device to multiply on, on the host functions alone.
set -euo pipefail
cmake=$1 build=$2 work=$3
fail() { echo "spmm: $*" >&2; exit 1; }

rm -rf "$work" && mkdir -p "$work"
"$cmake" --install "$build" --prefix "$work/first" --strip > "$work/install.log" || { cat "$work/install.log"; exit 1; }
mv "$work/first" "$work/moved"
library=$work/moved/lib/libsluice_spmm.so

other=$(nm --dynamic --defined-only "$library" | awk '$2 != "A" { print $3 }' | grep -v '^sluice_spmm_' || true)
[ -z "$other" ] || fail "the library shows more than its interface:"$'\n'"$(head -5 <<< "$other")"
outside=$(env -i ldd "$library" | awk -v lib="$work/moved/lib/" '
  /not found/ && !/libcublas/ { print; next }
  $3 ~ /^\// && index($3, lib) != 1 && $1 !~ /^lib(c|m|dl|rt|pthread|mvec|stdc\+\+|gcc_s|cublas|cublasLt)\.so/ { print }')
[ -z "$outside" ] || fail "the library needs others outside lib/ and the system:"$'\n'"$outside"
grep -rqF "$work/first" "$work/moved/lib/cmake" && fail "the CMake package names the folder it was installed to"

"$cmake" -S "$work/moved/share/sluice/spmm_example" -B "$work/example" -DCMAKE_PREFIX_PATH="$work/moved" \
  -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_FLAGS='-std=c11 -Wall -Wextra -Wpedantic -Werror' > "$work/configure.log" 2>&1 ||
  { cat "$work/configure.log"; fail "the example cannot be configured"; }
"$cmake" --build "$work/example" > "$work/build.log" 2>&1 || { cat "$work/build.log"; fail "the example does not compile"; }
for format in tiled_csl bank_csl pairs24 bitmap int8 int4_g64 bitmap_int4; do
  status=0
  "$work/example/spmm_example" "$format" > "$work/out" 2>&1 || status=$?
  cat "$work/out"
  [ "$status" -eq 0 ] || [ "$status" -eq 77 ] || fail "the example ends with status $status"
done
# A name that is no format: one line, from the library.
status=0
"$work/example/spmm_example" csr > "$work/out" 2>&1 || status=$?
[ "$status" -eq 1 ] && grep -q "'csr' is no format" "$work/out" || fail "csr: status $status, $(cat "$work/out")"
