#!/usr/bin/env bash
# Go stubs from protos/ into the ignored folder gen/, where each go_package says that they are. Needs protoc,
# protoc-gen-go and protoc-gen-go-grpc.
set -euo pipefail
cd "$(dirname "$0")"
module=$(sed -n 's/^module //p' go.mod)
rm -rf gen
mapfile -t protos < <(cd ../../protos && find tandem -name '*.proto' | sort)
protoc -I../../protos --go_out=. --go_opt="module=$module" --go-grpc_out=. --go-grpc_opt="module=$module" "${protos[@]}"
