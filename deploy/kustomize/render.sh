#!/usr/bin/env bash
# Writes base/tandem.yaml from the Helm chart's defaults, for those who use Kustomize alone.
set -euo pipefail
cd "$(dirname "$0")"
rendered=$("${HELM:-helm}" template tandem ../helm/tandem --no-hooks)
echo "$rendered" > base/tandem.yaml
