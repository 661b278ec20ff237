#!/usr/bin/env bash
# check_old_driver.sh SLUICE FOLDER: with the libcuda.so.1 in FOLDER, a driver of CUDA 11.0, the program starts, says
# why it cannot use the GPU, refuses to when asked for it, and runs on the CPU otherwise.
set -euo pipefail
sluice=$1
export LD_LIBRARY_PATH=$2${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
fail() { echo "old driver: $*" >&2; exit 1; }
why='the driver serves CUDA 11.0, this build needs 1'

version=$("$sluice" --version) || fail "--version failed"
[[ $version == *"cuda: none ($why"* ]] || fail "--version says: $version"

run=(generate --model random:opt-125m --prompt-len 4 --gen-len 2 --num-prompts 1)
status=0
refusal=$("$sluice" "${run[@]}" --device cuda 2>&1) || status=$?
[ "$status" -ne 0 ] || fail "--device cuda was taken"
[[ $refusal == *"no CUDA device: $why"*"; install or update the NVIDIA driver, or use --device cpu"* ]] ||
  fail "--device cuda says: $refusal"

said=$("$sluice" "${run[@]}" 2>&1 > /dev/null) || fail "a run that asks for no device failed: $said"
[[ $said == *"the CPU device is used; cuda: none ($why"* ]] || fail "a run that asks for no device says: $said"
echo "old driver: $refusal"
