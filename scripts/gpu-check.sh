#!/usr/bin/env bash
# What needs a GPU, from an installed folder (cmake --install of the cuda preset): tests, sanitizers, figures.
#   bash scripts/gpu-check.sh PART [FOLDER]
# PART is one of
#   tests      every test labelled gpu; those that need what the machine lacks (two devices) are named
#   sanitize   compute-sanitizer: memcheck on all kernels' tests, racecheck on one of each kind
#   rates      rates of the device, of the kernels and of CPU attention
#   spmm       products over sparse and quantised weights against cuBLAS, cuBLASLt and cuSPARSE
#   bench      whole runs of OPT models of real size, a row each (some need 112 GiB of memory)
#   sparse     whole runs with sparse weights, a row each (112 GiB of memory)
#   switches   one idea off at a time, a row each
#   disk       OPT-13B with all weights on disk
#   ragged     400 requests of many lengths against the bound for their mix (9 minutes: the bound alone is 6)
#   e2e        the command line on the bundled model: both devices, greedy texts compared
# FOLDER is the installed folder: by default the one that this file was installed in (share/sluice), else `install` in
# the repository. The CUDA libraries are looked for in CUDA_HOME (default /usr/local/cuda) where the system does not know
# them. ROWS is a regular expression: the rows of bench, sparse and switches, or the tools of sanitize, to run. REQUESTS is the
# number of ragged ones. OUT is a folder for the machine-readable statistics of rows (default: none are kept).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

part=${1:-}
case "$part" in
  tests | sanitize | rates | spmm | bench | sparse | switches | disk | ragged | e2e) ;;
  *) sed -n '2,/^set /s/^# //p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
folder=$here/../..
[ -x "$folder/bin/sluice" ] || folder=$here/../install
folder=$(realpath "${2:-$folder}")
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
  stats=${OUT:-$work}/$name.jsonl
  "$sluice" generate --device cuda "$@" --stats-out "$stats" || { failed+=("$name"); return 0; }
  check_memory "$@"
}
# figure NAME: a number of the last line of the row's statistics.
figure() { tail -n 1 "$stats" 2> /dev/null | sed -n "s/.*\"$1\":\([-+0-9.e]*\).*/\1/p"; }

# With a budget, what the driver says that the run took must be within it.
check_memory() {
  local budget=
  while [ $# -gt 1 ]; do
    [ "$1" = --gpu-memory ] && budget=${2%GiB}
    shift
  done
  [ -n "$budget" ] || return 0
  awk -v taken="$(figure device_bytes)" -v gib="$budget" 'BEGIN {
    within = taken <= gib * 2^30
    printf "  gpu memory taken %.3f GiB by the driver, less the context; budget %g GiB: %s\n", taken / 2^30, gib,
      within ? "within" : "EXCEEDED"
    exit !within
  }' || failed+=("${stats##*/} memory")
}

# matching PATTERN...: a gtest filter of the patterns, each of which names at least one test.
matching() {
  local pattern filter=
  for pattern in "$@"; do
    # All of the list is read: a reader that stops early would end its writer by a signal.
    [ -n "$("$tests" --gtest_list_tests --gtest_filter="$pattern" | sed -n '/^  /p')" ] || fail "no test matches $pattern"
    filter+="$pattern:"
  done
  echo "${filter%:}"
}

# run_tests COMMAND...: a test program says 77 when it skipped something, which it names.
run_tests() {
  local status=0
  "$@" || status=$?
  [ "$status" -eq 0 ] || [ "$status" -eq 77 ]
}

# sanitize TOOL OPTIONS... -- PATTERN...
# Left out: what compares times, since a kernel takes longer than a copy there.
sanitize() {
  local tool=$1 options=()
  shift
  [[ $tool =~ $rows ]] || return 0
  while [ "$1" != -- ]; do options+=("$1"); shift; done
  shift
  echo "== compute-sanitizer --tool $tool"
  local filter
  filter=$(matching "$@")
  run_tests compute-sanitizer --tool "$tool" "${options[@]}" --error-exitcode 9 --print-limit 5 "$tests" \
    --gtest_brief=1 --gtest_filter="$filter:-*Rates*:*DoNotQueueBehind*" || failed+=("$tool")
}

shape='--prompt-len 512 --gen-len 32'
big='--gpu-memory 16GiB --cpu-memory 112GiB'
resident='--percent 100 0 100 0 100 0'
streamed='--percent 18 82 0 100 100 0 --gpu-batch-size 44 --num-gpu-batches 2'

case "$part" in
  tests)
    run_tests "$tests" --gtest_filter='*Cuda*:Fused*:Overlap.*:-*Rates*' --gtest_brief=1 || failed+=(tests)
    ;;
  sanitize)
    # Refusals that tests provoke are no errors.
    sanitize memcheck --report-api-errors no -- '*AttentionCuda*' '*KvWrite*' '*LayerNormCuda*' '*EmbeddingCuda*' \
      'GatherRowsCuda*' '*SampleCuda*' '*LinearCuda*' 'StreamCuda*' 'DeviceCuda.*' '*ExpandCuda*' '*Fused*' 'Overlap.*'
    sanitize racecheck -- '*AttentionCudaCases*mixed' '*AttentionCudaCases*decode_at*' \
      '*AttentionCudaCases*prefill_65' '*KvWriteRounds*' '*LayerNormCuda*' '*EmbeddingCuda*' 'GatherRowsCuda*' \
      '*SampleCuda*' '*LinearCudaRows.AGroup*'
    ;;
  rates)
    "$sluice" bench device
    "$sluice" bench attention
    "$tests" --gtest_filter='*Cuda*Rates*'
    ;;
  spmm)
    "$sluice" bench spmm --cusparse-rows 16 --csv "${OUT:-$work}/spmm.csv"
    "$sluice" bench formats
    ;;
  bench)
    row opt-6.7b-resident --model random:opt-6.7b $resident --gpu-batch-size 64 --num-prompts 64 $shape
    row opt-30b-resident --model random:opt-30b $resident --gpu-batch-size 16 --num-prompts 16 $shape
    row opt-30b-block --model random:opt-30b $big $streamed --cpu-cache-compute --num-prompts 88 $shape
    row opt-30b-no-flags --model random:opt-30b $big --num-prompts 88 $shape
    row opt-30b-mixed --model random:opt-30b $big $streamed --cpu-cache-compute --num-prompts 264 $shape
    # All tiers full; one pass. From the engine's construction: the process has done nothing before.
    if [[ opt-30b-start =~ $rows ]]; then
      row opt-30b-start --model random:opt-30b $big $streamed --cpu-cache-compute --num-prompts 88 --prompt-len 512 \
        --gen-len 1
      awk -v sec="$(figure first_layer_sec)" 'BEGIN {
        printf "  start to first layer %.2f s (must 30 s, aim 15 s: %s)\n", sec,
          sec > 0 && sec <= 15 ? "aim reached" : sec > 0 && sec <= 30 ? "must reached" : "missed"
      }'
    fi
    ;;
  sparse)
    # Sparse weights: the block fills the CPU memory; the mixed runs are three blocks.
    sparse='--format bitmap --sparsity 0.8 --cpu-memory 112GiB --num-gpu-batches 2 --cpu-cache-compute'
    row opt-30b-bitmap --model random:opt-30b $sparse --gpu-memory 16GiB --percent 50 50 0 100 100 0 \
      --gpu-batch-size 66 --num-prompts 132 $shape
    row opt-66b-bitmap --model random:opt-66b $sparse --gpu-memory 75GiB --percent 100 0 0 100 100 0 \
      --gpu-batch-size 42 --num-prompts 84 $shape
    row opt-66b-bitmap-mixed --model random:opt-66b $sparse --gpu-memory 75GiB --percent 100 0 0 100 100 0 \
      --gpu-batch-size 42 --num-prompts 252 $shape
    row opt-175b-bitmap --model random:opt-175b $sparse --gpu-memory 75GiB --percent 76 24 0 100 100 0 \
      --gpu-batch-size 17 --num-prompts 34 $shape
    row opt-175b-bitmap-mixed --model random:opt-175b $sparse --gpu-memory 75GiB --percent 76 24 0 100 100 0 \
      --gpu-batch-size 17 --num-prompts 102 $shape
    row opt-175b-tiled-csl --model random:opt-175b ${sparse/bitmap/tiled_csl} --gpu-memory 75GiB \
      --percent 49 51 0 100 100 0 --gpu-batch-size 8 --num-prompts 16 $shape
    ;;
  switches)
    # Shorter runs than bench's; the first has all ideas on.
    short="$big $streamed --num-prompts 88 --prompt-len 512 --gen-len 8"
    row switch-none --model random:opt-30b $short --cpu-cache-compute
    row switch-cpu-attention --model random:opt-30b $short
    row switch-mixing --model random:opt-30b $short --cpu-cache-compute --no-mixing
    row switch-prefetch --model random:opt-30b $short --cpu-cache-compute --no-prefetch
    row switch-piece-size --model random:opt-30b $short --cpu-cache-compute --piece-size 1MiB
    row switch-pinning --model random:opt-30b $short --cpu-cache-compute --pin-weight 0
    ;;
  disk)
    "$sluice" bench generate --device cuda --model random:opt-13b --sequences 4 --gen-len 3 --rounds 3 --raw-size 8GiB
    ;;
  ragged)
    "$sluice" bench ragged --device cuda --model random:opt-30b $big --requests "${REQUESTS:-400}"
    ;;
  e2e)
    model=tests/golden/tiny-opt-books-sparse80
    tar -xzf "$folder/share/sluice/tests.tar.gz" -C "$work" "$model"
    "$sluice" convert "$work/$model" "$work/store"
    for device in cpu cuda; do
      "$sluice" generate --device "$device" --model "$work/store" --percent 34 33 50 50 100 0 --gpu-batch-size 2 \
        --num-gpu-batches 2 --max-new-tokens 12 'The old man' 'It was a dark night' > "$work/$device.txt"
    done
    cat "$work/cuda.txt"
    # Texts part where two tokens are nearly equally likely; these do not within twelve.
    diff "$work/cpu.txt" "$work/cuda.txt" || fail "the two devices generate different texts"
    ;;
esac
[ ${#failed[@]} -eq 0 ] || fail "failed: ${failed[*]}"
