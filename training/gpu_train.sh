#!/usr/bin/env bash
# Runs the training on a GPU machine whose commands are limited in time: the run itself is a process of its own
# session, which later calls wait for.   MODE=speed | smoke | start | wait | collect   (OUT: where results go)
set -euo pipefail
cd "$(dirname "$0")/.."
WORK=${WORK:-/tmp/tandem-train}
OUT=${OUT:-$WORK/out}
DATA=${DATA:-$WORK/speech}
MINUTES=${MINUTES:-16}
export PYTHONUNBUFFERED=1 PYTORCH_ALLOC_CONF=expandable_segments:False
mkdir -p "$WORK" "$OUT"

collect() {  # the exported model in parts of 15 MiB; undo with: cat model.tar.part* | tar x
  cp "$WORK"/*.log "$OUT"/
  if [ -f "$WORK/model/model.pt" ]; then
    tar -C "$WORK" -cf - model | split -b 15m - "$OUT/model.tar.part"
  fi
  ls -l "$OUT"
}

follow() {  # shows the log for at most WAIT seconds, or until the run ends
  local pid; pid=$(cat "$WORK/pid")
  timeout "${WAIT:-560}" tail --pid="$pid" -n "${LINES_BACK:-5}" -F "$WORK/train.log" || true
  if kill -0 "$pid" 2>/dev/null; then echo "still training"; else echo "training ended"; fi
}

case "${MODE:-smoke}" in
  speed) python3 -m training.speed_test --profile ${ARGS:-} 2>&1 | tee "$OUT/speed.log" ;;
  smoke) # shellcheck disable=SC2086
    python3 -m training.train --data $DATA --work "$WORK/smoke" --minutes "${MINUTES}" ${ARGS:-} 2>&1 | tee "$OUT/smoke.log" ;;
  start) # shellcheck disable=SC2086
    setsid nohup python3 -m training.train --data $DATA --work "$WORK" --minutes "$MINUTES" ${RESUME:+--resume} \
      ${ARGS:-} >"$WORK/train.log" 2>&1 </dev/null &
    echo $! >"$WORK/pid"
    sleep 2
    follow
    collect ;;
  wait) follow; collect ;;
  collect) collect ;;
  *) echo "MODE must be speed, smoke, start, wait or collect" >&2; exit 2 ;;
esac
