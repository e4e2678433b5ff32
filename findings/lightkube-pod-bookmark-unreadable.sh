#!/usr/bin/env bash
# lightkube 1.0.1 cannot read the bookmark of a watch of Pods, a message that API servers send by themselves once they are
# asked to, and breaks the watch off. Seen 2026-11-29, with kube-apiserver 1.20.2.
#
# Guess: a bookmark is an object of the kind that is watched (Kubernetes API concepts, "Watch bookmarks"), so whoever can
# read Pods can read it.
# Seen: of the object only metadata.resourceVersion is filled in, and the server writes the rest as an empty Pod has it:
# "spec": {"containers": null}. The typed Pod of lightkube has `containers: List[Container]`, and its decoder refuses null:
# msgspec.ValidationError, which is none of the errors that its `on_error` is asked about. A generic resource (plain JSON)
# of the same kind reads it. lightkube itself asks for no bookmarks; a transport that adds allowWatchBookmarks=true, or a
# proxy that does, gets this.
#
# It takes python3 of 3.11 or later.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check lightkube==1.0.1 lightkube-models==1.37.0.8

timeout 60 "$dir/venv/bin/python" - <<'PY'
import importlib.metadata
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from lightkube import Client, KubeConfig
from lightkube.config.models import Cluster, User
from lightkube.generic_resource import create_namespaced_resource
from lightkube.resources.core_v1 import Pod

# One event as kube-apiserver 1.20.2 sends it.
EVENT = (
    b'{"type":"BOOKMARK","object":{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"343",'
    b'"creationTimestamp":null},"spec":{"containers":null},"status":{}}}\n'
)


class Api(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(EVENT)))
        self.end_headers()
        self.wfile.write(EVENT)

    def log_message(self, format: str, *args: object) -> None:
        pass


server = HTTPServer(("127.0.0.1", 0), Api)
threading.Thread(target=server.serve_forever, daemon=True).start()
cluster = Cluster(server=f"http://127.0.0.1:{server.server_port}")
client = Client(KubeConfig.from_one(cluster=cluster, user=User(token="t"), namespace="n"), trust_env=False)


def first(kind: type) -> str:
    try:
        event, found = next(iter(client.watch(kind, resource_version="1")))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return f"{event} {found.metadata.resourceVersion}"


seen = [first(Pod), first(create_namespaced_resource("", "v1", "Pod", "pods"))]
print("lightkube", importlib.metadata.version("lightkube"), *seen, sep="\n  ")
expected = ["ValidationError: Expected `array`, got `null` - at `$.spec.containers`", "BOOKMARK 343"]
sys.exit(0 if seen == expected else f"changed: expected {expected}")
PY
