#!/usr/bin/env bash
# Copies the protocol into the package, installs its dependencies and runs the unit tests.
set -euo pipefail
cd "$(dirname "$0")"
rm -rf proto
mkdir -p proto/tandem/asr/v1
cp ../../protos/tandem/asr/v1/*.proto proto/tandem/asr/v1/
npm ci --no-audit --no-fund --loglevel=error
npm test
