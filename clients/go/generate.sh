#!/usr/bin/env bash
# Go stubs from protos/ into the ignored folder gen/. Needs protoc, protoc-gen-go and protoc-gen-go-grpc.
set -euo pipefail
cd "$(dirname "$0")"
module=github.com/tandem-asr/tandem/clients/go
asr=tandem/asr/v1/asr.proto
map="M$asr=$module/gen/tandem/asr/v1;asrv1"
protoc -I../../protos --go_out=. --go_opt="module=$module" --go_opt="$map" \
  --go-grpc_out=. --go-grpc_opt="module=$module" --go-grpc_opt="$map" "$asr"
