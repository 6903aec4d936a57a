#!/usr/bin/env bash
# Builds the gateway's image without Docker or a registry (Debian's debootstrap and buildah, as root), starts
# it, and asks it for its health. About two minutes. Ends with 77 where the machine does not allow that much.
set -euo pipefail
cd "$(dirname "$0")/../.."
export BUILDAH_ISOLATION=chroot
base=localhost/tandem-check-base image=localhost/tandem-check-gateway

# With a storage of its own: what else is kept on this machine stays.
buildah() { command buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs "$@"; }
cannot() { echo "THE GATEWAY'S IMAGE WAS NOT BUILT: $1" >&2; exit 77; }

make_base() {
  local site container
  site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -n 1)
  debootstrap --variant=minbase --include=python3,python3-venv,python-is-python3,ca-certificates \
    bookworm "$work/root" "$site" &&
    container=$(buildah from scratch) &&
    buildah copy -q "$container" "$work/root" / &&
    buildah commit -q "$container" $base
}

[[ $(id -u) == 0 ]] || cannot "it takes root"
for program in debootstrap buildah; do
  type -P $program >/dev/null || cannot "$program is not installed"
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
make_base || cannot "this machine cannot make a base image"

host=(-v /etc/ssl/certs:/etc/ssl/certs:ro)
[[ -f /etc/pip.conf ]] && host+=(-v /etc/pip.conf:/etc/pip.conf:ro)
buildah bud --pull-never --format docker "${host[@]}" --build-arg BASE=$base \
  -f deploy/docker/gateway.Dockerfile -t $image .
container=$(buildah from --pull-never $image)
buildah run "$container" -- sh -ec '
  test "$(id -u)" = 10001
  python -m gateway --listen 127.0.0.1:56051 --http-host 127.0.0.1 --http-port 56052 --realtime-port 0 &
  trap "kill $!" EXIT
  python - <<PY
import importlib.util, time, urllib.error, urllib.request
assert importlib.util.find_spec("torch") is None and importlib.util.find_spec("vllm") is None
for _ in range(60):
    try:
        assert b"ok" in urllib.request.urlopen("http://127.0.0.1:56052/health", timeout=5).read()
        assert b"<html" in urllib.request.urlopen("http://127.0.0.1:56052/", timeout=5).read()
        break
    except urllib.error.URLError:
        time.sleep(0.5)
else:
    raise SystemExit("the gateway did not answer")
PY'
echo "the gateway image builds, runs as user 10001 and answers"
