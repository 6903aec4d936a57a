#!/usr/bin/env bash
# Generates the stubs, vets, tests and builds with Debian's Go and grpc-go (no module proxy needed).
# Programs land in clients/go/build/bin. Users of modules: see README.md.
set -euo pipefail
cd "$(dirname "$0")"
mapfile -t packages < debian.txt
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if ((${#missing[@]})); then
  apt-get -o DPkg::Lock::Timeout=500 update -q
  apt-get -o DPkg::Lock::Timeout=500 install -y -q --no-install-recommends "${missing[@]}"
fi

bash generate.sh
module=github.com/tandem-asr/tandem/clients/go
root="$PWD/build/gopath"
mkdir -p "$root/src/$(dirname $module)" build/bin
ln -sfn "$PWD" "$root/src/$module"
export GO111MODULE=off GOFLAGS='' GOTOOLCHAIN=local GOPATH="$root:/usr/share/gocode"
cd "$root/src/$module"
unformatted=$(gofmt -l ./*.go examples)
if [[ -n $unformatted ]]; then
  echo "gofmt would change: $unformatted" >&2
  exit 1
fi
go vet . ./examples/...
go build ./gen/...
go test .
for example in recognize live batch; do
  go build -o "build/bin/$example" "$module/examples/$example"
done
