#!/usr/bin/env bash
# What needs a GPU, from an installed folder (cmake --install of the cuda preset): tests, sanitizers, figures.
#   bash scripts/gpu-check.sh PART [FOLDER]
# PART is one of
#   tests      every test labelled gpu, a line each
#   sanitize   compute-sanitizer memcheck and racecheck on the kernels' tests
#   rates      rates of the kernels against the device's own
#   bench      whole runs of OPT models of real size, a row each (some need 112 GiB of memory)
#   e2e        the command line on the bundled model, on both devices
# FOLDER is the installed folder, by default `install` in the repository. The CUDA libraries are looked for in
# CUDA_HOME (default /usr/local/cuda) where the system does not know them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

part=${1:-}
folder=$(realpath "${2:-install}")
cuda=${CUDA_HOME:-/usr/local/cuda}
export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$cuda/lib64"
sluice=$folder/bin/sluice
tests=$folder/bin/sluice_tests
[ -x "$sluice" ] || { echo "gpu-check: no $sluice; build and install the cuda preset first" >&2; exit 1; }
if [ -d tests/golden ]; then export SLUICE_TESTS_DIR=$PWD/tests; fi

gpu_suites='*Cuda*'
case "$("$sluice" --version)" in
  *"cuda: none"* | *"not in this build"*) "$sluice" --version >&2; echo "gpu-check: no device" >&2; exit 1 ;;
esac
"$sluice" --version

only=${ROWS:-.}  # a regular expression: the rows of bench to run

# row NAME ARGUMENTS...: one whole run, unless ROWS leaves it out.
row() {
  local name=$1
  shift
  [[ $name =~ $only ]] || return 0
  echo "== $name: sluice generate --device cuda $*"
  "$sluice" generate --device cuda "$@" --stats-out "${OUT:-/tmp}/$name.jsonl" || echo "$name FAILED"
}

case "$part" in
  tests | sanitize | rates) [ -x "$tests" ] || { echo "gpu-check: no $tests; configure with SLUICE_TESTS" >&2; exit 1; } ;;
esac
case "$part" in
  tests)
    "$tests" --gtest_filter="$gpu_suites:-*Rates*" --gtest_brief=1
    ;;
  sanitize)
    for tool in memcheck racecheck; do
      echo "== compute-sanitizer --tool $tool"
      compute-sanitizer --tool "$tool" --error-exitcode 9 --print-limit 5 "$tests" --gtest_brief=1 \
        --gtest_filter='*Cuda*mixed*:*Cuda*decode_at*:*Cuda*prefill_65*:*KvWriteCuda*:*LayerNormCuda*:*EmbeddingCuda*:*SampleCuda*'
    done
    ;;
  rates)
    "$sluice" bench device
    "$sluice" bench attention
    "$tests" --gtest_filter='*Cuda*Rates*'
    ;;
  e2e)
    store=$(mktemp -d)/store
    "$sluice" convert tests/golden/tiny-opt-books-sparse80 "$store"
    for device in cpu cuda; do
      "$sluice" generate --device "$device" --model "$store" --percent 34 33 50 50 100 0 --gpu-batch-size 2 \
        --num-gpu-batches 2 --max-new-tokens 40 'The old man' 'It was a dark night'
    done
    ;;
  bench)
    shape='--prompt-len 512 --gen-len 32'
    big='--gpu-memory 16GiB --cpu-memory 112GiB'
    resident='--percent 100 0 100 0 100 0'
    row opt-6.7b-resident --model random:opt-6.7b $resident --gpu-batch-size 64 --num-prompts 64 $shape
    row opt-30b-resident --model random:opt-30b $resident --gpu-batch-size 16 --num-prompts 16 $shape
    row opt-30b-block --model random:opt-30b $big --percent 18 82 0 100 100 0 --cpu-cache-compute \
      --gpu-batch-size 44 --num-gpu-batches 2 --num-prompts 88 $shape
    row opt-13b-disk --model random:opt-13b --gpu-memory 12GiB --cpu-memory 8GiB --percent 0 0 100 0 100 0 \
      --gpu-batch-size 4 --num-prompts 4 --prompt-len 64 --gen-len 5
    row opt-30b-no-flags --model random:opt-30b $big --num-prompts 88 $shape
    row opt-30b-mixed --model random:opt-30b $big --percent 18 82 0 100 100 0 --cpu-cache-compute \
      --gpu-batch-size 44 --num-gpu-batches 2 --num-prompts 264 $shape
    ;;
  *)
    sed -n '2,12s/^# //p' "$0" >&2
    exit 2
    ;;
esac
