#!/usr/bin/env bash
# run.sh Recognize|Live|Batch [flags]: an example program, built by build.sh.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
program=$1
shift
exec java -Djava.library.path="$here/build/native" -cp "$(cat "$here/build/classpath")" \
  "dev.tandem.examples.$program" "$@"
