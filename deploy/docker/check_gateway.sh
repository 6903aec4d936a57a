#!/usr/bin/env bash
# Builds the gateway's image without Docker or a registry (Debian's debootstrap and buildah, as root), starts
# it, and asks it for its health. About two minutes.
set -euo pipefail
cd "$(dirname "$0")/../.."
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot
work=$(mktemp -d)
trap 'buildah rm -a >/dev/null; buildah rmi -f tandem-check-base tandem-check-gateway >/dev/null || true; rm -rf "$work"' EXIT
debootstrap --variant=minbase --include=python3,python3-venv,python-is-python3,ca-certificates bookworm "$work/root"
container=$(buildah from scratch)
buildah copy -q "$container" "$work/root" /
buildah commit -q "$container" localhost/tandem-check-base
host=(-v /etc/ssl/certs:/etc/ssl/certs:ro)
[[ -f /etc/pip.conf ]] && host+=(-v /etc/pip.conf:/etc/pip.conf:ro)
buildah bud --pull-never --format docker "${host[@]}" --build-arg BASE=localhost/tandem-check-base \
  -f deploy/docker/gateway.Dockerfile -t localhost/tandem-check-gateway .
container=$(buildah from --pull-never localhost/tandem-check-gateway)
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
