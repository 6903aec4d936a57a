#!/usr/bin/env bash
# Runs benchmark stages on a GPU machine; a stage that fails is reported and the next one runs.
#   bash benchmarks/gpu/run.sh STAGE...        stages are the functions below
# Results go to $OUT (default ./gpu-results) as results.tgz, written again after every stage. Checkpoint and
# recordings stay in $ROOT (default /tmp/tandem-gpu), so that later calls on the same machine start sooner.
set -u
OUT=${OUT:-gpu-results} ROOT=${ROOT:-/tmp/tandem-gpu}
RESULTS=$ROOT/results MODEL=${MODEL:-$ROOT/model${SMALL:+-small}}  # SMALL=1: small networks, for a CPU
mkdir -p "$OUT" "$RESULTS"

probe() {  # what the machine is and has
  nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader
  nproc; python3 --version
  python3 -m pip list 2>/dev/null | grep -iE "^(torch|transformers|numpy|grpcio|protobuf|onnxruntime|tiktoken|tokenizers|scipy|prometheus|soundfile|huggingface|safetensors|matplotlib)"
  python3 - <<'PY'
import importlib, time
for name in ("grpc", "google.protobuf", "torch", "transformers", "vllm", "onnxruntime", "fastapi", "uvicorn", "soundfile",
             "tandem", "gateway.__main__", "encoder_service.__main__", "decoder_service.service"):
    began = time.time()
    try:
        module = importlib.import_module(name)
        print(f"{name:26} {getattr(module, '__version__', '')} {time.time() - began:.1f} s")
    except Exception as error:
        print(f"{name:26} {type(error).__name__}: {error}")
PY
}

model() { python3 -m benchmarks.published "$MODEL" ${SMALL:+--small}; }
smoke() { side --smoke --parts tandem transformers; }
tandem() { side --parts tandem; }
slow() { side --parts transformers; }
peer() { side --parts funasr; }
all() { side; }
growth() { studies growth; }
live() { studies live; }
together() { studies tandem growth live; }  # on one start of the tiers, as are the next three
start() { studies tandem growth; }
both() { studies growth live; }
quick() { studies tandem live; }
tp() {  # needs two GPUs; NVLink multicast stays off, for hosts whose other GPUs somebody else uses
  export NCCL_NVLS_ENABLE=0 TORCH_SYMM_MEM_DISABLE_MULTICAST=1 VLLM_ALLREDUCE_USE_SYMM_MEM=0
  # shellcheck disable=SC2086
  python3 -m benchmarks.tensor_parallel --model "$MODEL" --root "$ROOT" --json "$RESULTS/$STAGE.json" ${FLAGS:-}
}
studies() {
  # shellcheck disable=SC2086
  python3 -m benchmarks.studies "$@" --model "$MODEL" --root "$ROOT" --json "$RESULTS/$STAGE.json" ${FLAGS:-}
}
sweep() {  # what limits it: other settings, profiles; half of the time is the start of vLLM
  # shellcheck disable=SC2086
  python3 -m benchmarks.sweep --model "$MODEL" --root "$ROOT" --json "$RESULTS/sweep.json" --profile "$RESULTS/profile" ${FLAGS:-}
}
processes() {  # several encoders and decoders on one GPU
  # shellcheck disable=SC2086
  python3 -m benchmarks.sweep --sets processes --model "$MODEL" --root "$ROOT" --json "$RESULTS/sweep_processes.json" ${FLAGS:-}
}
hop() {  # both tiers in one process beside the two, one of each
  # shellcheck disable=SC2086
  python3 -m benchmarks.hop --model "$MODEL" --root "$ROOT" --json "$RESULTS/hop.json" ${FLAGS:-}
}
shared() {  # which kinds of encoders outlive sharing the GPU with a decoder
  # shellcheck disable=SC2086
  python3 -m benchmarks.shared_gpu --model "$MODEL" --root "$ROOT" ${FLAGS:-}
}
drafts() {  # speculative decoding: the published size with scripted answers
  # shellcheck disable=SC2086
  python3 -m benchmarks.speculative --engine vllm --scripted 0.05 0.2 ${FLAGS:-}
}
drafts_demo() {  # the same with the demo model on the recording that it knows
  # shellcheck disable=SC2086
  python3 -m scripts.unpack_demo && python3 -m benchmarks.speculative --engine vllm --groups clean ${FLAGS:-}
}

side() {  # side_by_side with the shared checkpoint; FLAGS holds more of its options
  # shellcheck disable=SC2086
  python3 -m benchmarks.side_by_side --model "$MODEL" --root "$ROOT" --json "$RESULTS/side_$STAGE.json" "$@" ${FLAGS:-}
}

keep() {  # logs of the tiers and all results
  mkdir -p "$RESULTS/logs"
  find "$ROOT" -name '*.log' -not -path "$RESULTS/*" | while read -r log; do
    tail -c 400000 "$log" > "$RESULTS/logs/$STAGE-$(basename "$(dirname "$log")")-$(basename "$log")"
  done
  tar -czf "$OUT/results.tgz" -C "$RESULTS" .
}

[ -f "$MODEL/model.pt" ] || [ "$*" = probe ] || { STAGE=model; model; }
for STAGE in "$@"; do
  echo "=== $STAGE"; began=$SECONDS
  "$STAGE" 2>&1 | tee "$RESULTS/$STAGE.txt"
  echo "=== $STAGE: status ${PIPESTATUS[0]}, $((SECONDS - began)) s"
  keep
done
