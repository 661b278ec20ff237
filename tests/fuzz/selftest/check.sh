#!/usr/bin/env bash
# check.sh DRIVER WORK_DIR: each fault of faulty_target.cc must fail the driver, be named, and be reproducible.
set -euo pipefail
driver=$1 work=$2
rm -rf "$work" && mkdir -p "$work" && cd "$work"

expect() {  # expect INITIAL TEXT: a seed that begins with INITIAL is reported with TEXT and saved
  mkdir -p "seeds_$1" && printf '%s_fault' "$1" > "seeds_$1/seed"
  if "$driver" --seeds "seeds_$1" --seconds 0.2 --hang-sec 2 --rss-mib 150 > out 2>&1; then
    echo "fault $1 was not found"; cat out; exit 1
  fi
  grep -q -- "$2" out || { echo "fault $1: no '$2' in:"; cat out; exit 1; }
  saved=$(awk 'END { print $NF }' out)
  [ "$(cat "$saved")" = "$1_fault" ] || { echo "fault $1: the saved input differs"; cat out; exit 1; }
}
expect A "signal 6"
expect X "an exception left the target: escaped"
expect H "took more than 2 s"
[ "${3:-}" = sanitized ] || expect M "peak memory"
expect E "the target ended the process"

# A good corpus passes; mutation finds the fault one bit away from a seed; an empty corpus is refused.
mkdir -p good none near && printf 'abcd' > good/seed && printf 'C_fault' > near/seed
"$driver" --seeds good --seconds 0.1 --seed 3 | grep -q '^seed 3: .* from 1 seeds'
"$driver" --seeds near --seconds 60 > out 2>&1 && { echo "mutation found nothing"; exit 1; }
grep -q 'Reproduce with' out
"$driver" --seeds none > out 2>&1 && { echo "an empty corpus passed"; exit 1; }
grep -q 'no seed inputs' out
echo "every fault is reported"
