#!/bin/sh
# Synthesises training speech on a GPU machine. Usage: training/gpu_synth.sh PART1 PART2 OUT MINUTES [SEED] [more options]
# PART1 and PART2 are the folders that `python -m training.fetch_tts pack` wrote. Run it in the repository root.
set -eu
part1=$1 part2=$2 out=$3 minutes=$4
seed=${5:-0}
shift "$(($# < 5 ? $# : 5))"
assets=$(mktemp -d)
for file in "$part1"/weights-*.npz "$part2"/weights-*.npz "$part1"/voices.npz; do
    ln -s "$(realpath "$file")" "$assets/"
done
export PYTORCH_CUDA_ALLOC_CONF="${PYTORCH_CUDA_ALLOC_CONF:-expandable_segments:True}"
exec python3 -u -m training.synthesize_gpu --assets "$assets" --phonemes "$part2/phonemes.npz" \
    --out "$out" --minutes "$minutes" --seed "$seed" "$@"
