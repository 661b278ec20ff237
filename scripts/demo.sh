#!/usr/bin/env bash
# From a fresh machine to generated text: installs the packages, builds, converts the bundled trained OPT into a
# store, and continues prompts with its weights and KV cache spread over all three tiers. The report of the run
# follows the text. What is done already is skipped.
#   bash scripts/demo.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

preset=$(bash scripts/default_preset.sh)
bash scripts/build.sh "$preset" --target sluice

sluice=build/$preset/apps/sluice
model=tests/golden/tiny-opt-books-sparse80
store=build/demo/tiny-opt
say() {  # prints a command as one would type it, then runs it
  local word line='$'
  for word in "$@"; do
    [[ $word != *[[:space:]]* ]] || word=\'$word\'
    line+=" $word"
  done
  printf '\n%s\n' "$line"
  "$@"
}

# A store whose source has changed is made again; an interrupted conversion goes on where it stopped.
if [ ! -f "$store/manifest.json" ] || [ "$model/model.safetensors" -nt "$store/manifest.json" ]; then
  mkdir -p build/demo
  say "$sluice" convert --force "$model" "$store"
fi
say "$sluice" generate --model "$store" --percent 34 33 50 50 100 0 \
  --gpu-batch-size 2 --num-gpu-batches 2 --max-new-tokens 40 \
  "Once upon a time, there was a little girl named Lily." \
  "The dog ran to the park and" \
  "Tom and Sam went to the beach. They saw a big" \
  '"I am sorry," said the bear.' \
  "One day,"
