#!/usr/bin/env bash
# Builds the images without Docker and without a registry, and labels photos through them. For Debian 12, as root:
#   apt-get install buildah podman runc debootstrap catatonit dnsmasq-base golang-github-containernetworking-plugin-dnsname
#   pip install podman-compose
#   deploy/docker/prove.sh FOLDER [option of `buildah bud` …]
# FOLDER holds all that is made; images that are there already are not built again. The base images are a stand-in, Debian
# with its own Python and Redis. Options such as `-v /etc/pip.conf:/etc/pip.conf:ro` let pip find its index.
# Not proven: the base images themselves, BuildKit, CUDA, and a network without a way out, on which this podman has no names.
set -euo pipefail
work=$(realpath -m "${1:?a folder}"); shift
mkdir -p "$work"
cd "$(dirname "$0")/../.."

cat >"$work/containers.conf" <<END
[containers]
default_ulimits = ["nofile=10000:10000", "nproc=20000:20000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
END
printf '[storage]\ndriver = "overlay"\ngraphroot = "%s/storage"\nrunroot = "%s/run"\n' "$work" "$work" >"$work/storage.conf"
export CONTAINERS_CONF="$work/containers.conf" CONTAINERS_STORAGE_CONF="$work/storage.conf"
names=docker.io/library

if ! buildah inspect --type image $names/redis:8-alpine >/dev/null 2>&1; then
    debootstrap --variant=minbase --include=python3,python3-pip,python3-venv,ca-certificates,libgomp1,redis-server \
        bookworm "$work/root"
    ln -s /usr/bin/python3 "$work/root/usr/local/bin/python"
    container=$(buildah from scratch)
    buildah add -q "$container" "$work/root" /
    buildah config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
    buildah commit -q "$container" $names/python:3.12-slim
    buildah run --isolation chroot "$container" sh -c 'mkdir -p /data && chown redis:redis /data'
    buildah config --workingdir /data "$container"
    buildah commit -q --rm "$container" $names/redis:8-alpine
fi
for target in control s3 worker; do
    buildah inspect --type image $names/imagemill:$target >/dev/null 2>&1 ||
        buildah bud --isolation chroot --pull-never --layers --format docker --build-arg TORCH_INDEX= "$@" \
            -f deploy/docker/Dockerfile --target $target -t $names/imagemill:$target .
done

# Root for nothing, and every layer of the confinement of children still there.
podman run --rm --read-only --cap-drop ALL --security-opt no-new-privileges --tmpfs /tmp imagemill:worker \
    python -c 'import os
from worker.confinement.confine import LAYERS, Limits, confine
assert os.getuid() == 1000 and not os.access("/", os.W_OK)
assert confine(Limits()) == LAYERS, confine(Limits())'

mkdir -p "$work/docker"
sed 's/inside: {internal: true}/inside: {}/' deploy/docker/compose.yaml >"$work/docker/compose.yaml"
python3 -c 'import sys, pathlib; from deploy.compose_keys import main; main(pathlib.Path(sys.argv[1]))' "$work/docker"
compose() { (cd "$work/docker" && podman-compose --profile cpu "$@"); }
compose down -v -t 5 >/dev/null 2>&1 || true
trap 'compose down -v -t 5 >/dev/null 2>&1' EXIT
compose up -d --no-build >"$work/up.log" 2>&1
inside() { podman exec imagemill_controller_1 "$@"; }
for _ in $(seq 60); do
    inside imagemill doctor >"$work/doctor.log" 2>&1 && break
    sleep 1
done
cat "$work/doctor.log"
photos=$(inside python -c 'import deploy; print(deploy.__path__[0])')/photos
inside imagemill classify "$photos" --model efficientnet-lite0

# The API is ready with keys of its own, lets a token in, and makes none.
asked() { podman exec imagemill_web_1 python -c "import sys, urllib.request as u
request = u.Request('http://127.0.0.1:8080' + sys.argv[1], headers={'Authorization': 'Bearer ' + sys.argv[2]})
print(u.urlopen(request, timeout=30).read().decode())" "$@"; }
token=$(inside imagemill tokens create --scope jobs --owner prove 2>/dev/null)
asked /readyz "$token"
asked /v1/token "$token"
asked /v1/served "$token"
! podman exec imagemill_web_1 imagemill tokens create --scope admin --owner prove 2>/dev/null
