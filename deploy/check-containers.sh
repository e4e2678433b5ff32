#!/usr/bin/env bash
# Builds the image from scratch on a Debian machine and runs it: the demo until a camera plays, then the relay itself with
# dummy secrets. Reports what it checked, and leaves the machine as it was.
#
#   sudo deploy/check-containers.sh                                    # makes its base image with debootstrap
#   sudo BASE=python:3.12-slim-bookworm deploy/check-containers.sh     # where a registry can be reached
#
# It needs root, and the packages docker.io and docker-compose (or Docker with its compose plugin), iptables and debootstrap.
# It uses a running Docker engine; if there is none, it starts one with its data in a temporary directory, and at the end
# stops it and restores the firewall rules.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d /tmp/relay-containers.XXXXXX)
image=nest-relay:check
port=${DEMO_PORT:-18080}
export DEMO_PORT=$port RELAY_PORT=$((port + 1)) RELAY_IMAGE=$image COMPOSE_PROJECT_NAME=nest-relay-check
engine=""
made_base=""

say() { printf '%s %s\n' "$(date +%T)" "$*"; }
fail() { say "FAILED: $*"; exit 1; }
need() { command -v "$1" >/dev/null || fail "$1 is missing: apt install $2"; }
compose() { (cd "$work/deploy" && "${COMPOSE[@]}" "$@"); }

tidy() {
    local code=$?
    set +e
    if [ "$code" != 0 ]; then compose logs --tail 40 2>/dev/null; fi
    if [ -d "$work/deploy" ]; then compose --profile demo down --volumes --timeout 10 >/dev/null 2>&1; fi
    docker image rm --force "$image" >/dev/null 2>&1
    if [ -n "$made_base" ]; then docker image rm --force "$BASE" >/dev/null 2>&1; fi
    if [ -n "$engine" ]; then
        kill "$engine" && wait "$engine" 2>/dev/null
        for link in $(ip -o link | grep -oE '(docker0|br-[0-9a-f]{12})' | sort -u); do
            grep -qx "$link" "$work/links" || ip link delete "$link"
        done
        for table in iptables ip6tables; do
            if [ -s "$work/$table" ]; then "$table-restore" <"$work/$table"; fi
        done
        sysctl -qw "net.ipv4.ip_forward=$(cat "$work/ip_forward")"
    fi
    grep -oE "$work/[^ ]+" /proc/mounts | sort -r | xargs --no-run-if-empty umount
    rm -rf "$work"
    exit "$code"
}

start_engine() {
    need dockerd docker.io
    need iptables iptables
    for table in iptables ip6tables; do
        # An empty table saves as nothing: write it explicitly, so that it can be restored.
        { for name in filter nat mangle raw; do echo "*$name"; echo COMMIT; done; "$table-save"; } >"$work/$table"
    done
    ip -o link | grep -oE '(docker0|br-[0-9a-f]{12})' | sort -u >"$work/links" || true
    cat /proc/sys/net/ipv4/ip_forward >"$work/ip_forward"
    export DOCKER_HOST=unix://$work/docker.sock
    dockerd --host "$DOCKER_HOST" --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/pid" \
        >"$work/dockerd.log" 2>&1 &
    engine=$!
    until docker info >/dev/null 2>&1; do
        kill -0 "$engine" 2>/dev/null || { tail -5 "$work/dockerd.log"; fail "dockerd did not start"; }
        sleep 0.5
    done
    say "started a Docker engine of our own ($(docker version --format '{{.Server.Version}}'))"
}

make_base() {
    need debootstrap debootstrap
    say "making a base image with debootstrap"
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$work/root" \
        >"$work/debootstrap.log" 2>&1 \
        || { tail -5 "$work/debootstrap.log"; fail "debootstrap"; }
    # This machine's trusted certificates, so that pip in the image reaches the same index.
    cp /etc/ssl/certs/ca-certificates.crt "$work/root/etc/ssl/certs/ca-certificates.crt"
    BASE=nest-relay-base:check
    tar -C "$work/root" -c . | docker import - "$BASE" >/dev/null
    rm -rf "$work/root"
    made_base=yes
}

wait_healthy() {
    local id status
    id=$(compose ps -q "$1")
    for _ in $(seq 90); do
        status=$(docker inspect -f '{{.State.Health.Status}}' "$id")
        [ "$status" = healthy ] && return
        sleep 1
    done
    fail "$1 is $status"
}

[ "$(id -u)" = 0 ] || fail "this needs root"
need docker docker.io
if docker compose version >/dev/null 2>&1; then COMPOSE=(docker compose); else need docker-compose docker-compose; COMPOSE=(docker-compose); fi
trap tidy EXIT
trap 'exit 130' INT TERM
docker info >/dev/null 2>&1 || start_engine
[ -n "${BASE:-}" ] || make_base

say "building on $BASE"
docker build --network host -f "$here/Dockerfile" --build-arg "BASE=$BASE" -t "$image" "$here/.." >"$work/build.log" 2>&1 \
    || { tail -20 "$work/build.log"; fail "the image cannot be built"; }
say "image: $(docker image inspect -f '{{.Size}}' "$image" | awk '{printf "%.0f MB", $1 / 1e6}'), user $(docker image inspect -f '{{.Config.User}}' "$image")"
found=$(docker run --rm --entrypoint sh "$image" -c 'command -v gcc cc make; ls -d /opt/nest-relay/lib/python3*/site-packages/pip /root/.cache 2>/dev/null' || true)
[ -z "$found" ] || fail "the image holds what it does not need: $found"
say "no compiler, no pip in the relay's environment, no cache"
missing=$(docker run --rm --entrypoint python "$image" -c 'from relay_worker import native; print(native.missing())')
[ -z "$missing" ] || fail "the compiled data path is missing from the image: $missing"
say "the compiled data path is in it"

cp -r "$here" "$work/deploy"
install -d "$work/deploy/secrets"
for secret in client_secret refresh_token app_secret http_token prometheus_token grafana_password; do
    echo "not-a-secret-$secret" >"$work/deploy/secrets/$secret"
done
chown 10001:10001 "$work"/deploy/secrets/*
chmod 0400 "$work"/deploy/secrets/*
compose --profile demo --profile monitoring config >/dev/null
say "compose.yaml is valid ($("${COMPOSE[@]}" version --short))"

# --- the demo ---------------------------------------------------------------------------------------------------------
compose up -d --no-build demo >/dev/null 2>&1
wait_healthy demo
say "demo: healthy, every camera live"
curl -fsS "http://127.0.0.1:$port/api/stats" | python3 -c '
import json, sys
totals = json.load(sys.stdin)["totals"]
assert totals["connected"] == totals["cameras"] == 6, totals
print("         /api/stats:", totals["connected"], "of", totals["cameras"], "live,", round(totals["bitrate"] / 1e6, 1), "Mbit/s")'
compose exec -T demo python - "http://127.0.0.1:$port" <"$here/play_one.py" >"$work/played" || fail "no camera plays"
say "played: $(cat "$work/played")"
if compose exec -T demo touch /opt/nest-relay/x 2>/dev/null; then fail "the root file system can be written"; fi
id=$(compose ps -q demo)
say "root file system read-only; $(docker exec "$id" grep -E '^(CapEff|NoNewPrivs):' /proc/1/status | tr -s '\t\n' '  ')"
say "memory of the demo, simulators included: $(docker stats --no-stream --format '{{.MemUsage}}' "$id")"
before=$(date +%s)
compose stop --timeout 20 demo >/dev/null 2>&1
say "stopped in $(($(date +%s) - before)) s, exit code $(docker inspect -f '{{.State.ExitCode}}' "$id")"
[ "$(docker inspect -f '{{.State.ExitCode}}' "$id")" = 0 ] || fail "it did not stop in order"

# --- the relay itself: it starts and says why nothing is live -------------------------------------------------------------
cp "$here/config.example.toml" "$work/deploy/relay.toml"
cat >"$work/deploy/docker-compose.override.yaml" <<'YAML'
services:
  supervisor:
    environment:
      # Nothing listens there, so nothing outside this machine is contacted.
      RELAY_NEST_API_BASE_URL: http://127.0.0.1:9/v1
      RELAY_NEST_TOKEN_URL: http://127.0.0.1:9/token
      RELAY_CLOUDFLARE_API_BASE_URL: http://127.0.0.1:9/v1
YAML
COMPOSE+=(-f compose.yaml -f docker-compose.override.yaml)
compose up -d --no-build supervisor >/dev/null 2>&1
wait_healthy supervisor
status() { curl -s -o /dev/null -w '%{http_code}' "$@"; }
url=http://127.0.0.1:$RELAY_PORT
[ "$(status "$url/api/stats")" = 401 ] || fail "the API answers without the token"
[ "$(status -H 'Authorization: Bearer not-a-secret-http_token' "$url/metrics")" = 200 ] || fail "no metrics with the token"
say "relay: alive, 401 without the token, metrics with it, /readyz $(status "$url/readyz")"
compose exec -T supervisor sh -c 'test -s /var/lib/nest-relay/state/relay.sqlite3' || fail "no state in the volume"
compose stop --timeout 20 supervisor >/dev/null 2>&1
id=$(compose ps -q supervisor)
[ "$(docker inspect -f '{{.State.ExitCode}}' "$id")" = 0 ] || fail "it did not stop in order"
say "stopped in order; its state is in the volume"
say "all of it works"
