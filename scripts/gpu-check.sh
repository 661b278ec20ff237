#!/usr/bin/env bash
# What needs a GPU, from an installed folder (cmake --install of the cuda preset): tests, sanitizers, figures.
#   bash scripts/gpu-check.sh PART [FOLDER]
# PART is one of
#   tests      every test labelled gpu
#   sanitize   compute-sanitizer memcheck and racecheck on the kernels' tests
#   rates      rates of the device, of the kernels and of CPU attention
#   bench      whole runs of OPT models of real size, a row each (some need 112 GiB of memory)
#   e2e        the command line on the bundled model: both devices, greedy texts compared
# FOLDER is the installed folder, by default `install` in the repository. The CUDA libraries are looked for in
# CUDA_HOME (default /usr/local/cuda) where the system does not know them. ROWS is a regular expression: the rows of
# bench to run. OUT is a folder for the machine-readable statistics of bench (default: none are kept).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

part=${1:-}
folder=$(realpath "${2:-install}")
cuda=${CUDA_HOME:-/usr/local/cuda}
export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$cuda/lib64"
sluice=$folder/bin/sluice
tests=$folder/bin/sluice_tests
rows=${ROWS:-.}
fail() { echo "gpu-check: $*" >&2; exit 1; }

[ -x "$sluice" ] || fail "no $sluice; build and install the cuda preset first"
case "$("$sluice" --version)" in
  *"cuda: none"* | *"not in this build"*) "$sluice" --version >&2; fail "no device" ;;
esac
case "$part" in
  tests | sanitize | rates) [ -x "$tests" ] || fail "no $tests; configure with SLUICE_TESTS" ;;
esac
"$sluice" --version
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

failed=()
# row NAME ARGUMENTS...: one whole run of generate, unless ROWS leaves it out.
row() {
  local name=$1
  shift
  [[ $name =~ $rows ]] || return 0
  echo "== $name: sluice generate --device cuda $*"
  "$sluice" generate --device cuda "$@" --stats-out "${OUT:-$work}/$name.jsonl" || failed+=("$name")
}

# matching PATTERN...: a gtest filter of the patterns, each of which names at least one test.
matching() {
  local pattern filter=
  for pattern in "$@"; do
    "$tests" --gtest_list_tests --gtest_filter="$pattern" | grep -q '^  ' || fail "no test matches $pattern"
    filter+="$pattern:"
  done
  echo "${filter%:}"
}

case "$part" in
  tests)
    "$tests" --gtest_filter='*Cuda*:-*Rates*' --gtest_brief=1
    ;;
  sanitize)
    filter=$(matching '*AttentionCudaCases*mixed' '*AttentionCudaCases*decode_at*' '*AttentionCudaCases*prefill_65' '*KvWriteRounds*' \
      '*LayerNormCuda*' '*EmbeddingCuda*' 'GatherRowsCuda*' '*SampleCuda*' '*LinearCudaRows.AGroup*')
    for tool in memcheck racecheck; do
      echo "== compute-sanitizer --tool $tool"
      compute-sanitizer --tool "$tool" --error-exitcode 9 --print-limit 5 "$tests" --gtest_brief=1 \
        --gtest_filter="$filter"
    done
    ;;
  rates)
    "$sluice" bench device
    "$sluice" bench attention
    "$tests" --gtest_filter='*Cuda*Rates*'
    ;;
  bench)
    shape='--prompt-len 512 --gen-len 32'
    big='--gpu-memory 16GiB --cpu-memory 112GiB'
    resident='--percent 100 0 100 0 100 0'
    streamed='--percent 18 82 0 100 100 0 --gpu-batch-size 44 --num-gpu-batches 2'
    row opt-6.7b-resident --model random:opt-6.7b $resident --gpu-batch-size 64 --num-prompts 64 $shape
    row opt-30b-resident --model random:opt-30b $resident --gpu-batch-size 16 --num-prompts 16 $shape
    row opt-30b-block --model random:opt-30b $big $streamed --cpu-cache-compute --num-prompts 88 $shape
    row opt-30b-no-flags --model random:opt-30b $big --num-prompts 88 $shape
    row opt-30b-mixed --model random:opt-30b $big $streamed --cpu-cache-compute --num-prompts 264 $shape
    # One idea off at a time, in shorter runs; the first has all of them on.
    short="$big $streamed --num-prompts 88 --prompt-len 512 --gen-len 8"
    row switch-none --model random:opt-30b $short --cpu-cache-compute
    row switch-cpu-attention --model random:opt-30b $short
    row switch-mixing --model random:opt-30b $short --cpu-cache-compute --no-mixing
    row switch-piece-size --model random:opt-30b $short --cpu-cache-compute --piece-size 1MiB
    row switch-pinning --model random:opt-30b $short --cpu-cache-compute --pin-weight 0
    if [[ opt-13b-disk =~ $rows ]]; then
      echo "== opt-13b-disk: sluice bench generate --device cuda --model random:opt-13b"
      "$sluice" bench generate --device cuda --model random:opt-13b --sequences 4 --gen-len 3 --rounds 3 \
        --raw-size 8GiB || failed+=(opt-13b-disk)
    fi
    ;;
  e2e)
    "$sluice" convert tests/golden/tiny-opt-books-sparse80 "$work/store"
    for device in cpu cuda; do
      "$sluice" generate --device "$device" --model "$work/store" --percent 34 33 50 50 100 0 --gpu-batch-size 2 \
        --num-gpu-batches 2 --max-new-tokens 12 'The old man' 'It was a dark night' > "$work/$device.txt"
    done
    cat "$work/cuda.txt"
    # Texts part where two tokens are nearly equally likely; these do not within twelve.
    diff "$work/cpu.txt" "$work/cuda.txt" || fail "the two devices generate different texts"
    ;;
  *)
    sed -n '2,13s/^# //p' "$0" >&2
    exit 2
    ;;
esac
[ ${#failed[@]} -eq 0 ] || fail "failed: ${failed[*]}"
