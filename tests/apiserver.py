"""An API server for tests: lists in pages, watches, versions, bookmarks, and what goes wrong.

As https://kubernetes.io/docs/reference/using-api/api-concepts/ says: one counter for the versions
of all objects, a watch from a version on, and 410 for a version that was forgotten.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import yaml

PATHS = {
    "/api/v1/pods": "pods",
    "/api/v1/services": "services",
    "/api/v1/nodes": "nodes",
    "/api/v1/namespaces": "namespaces",
    "/apis/discovery.k8s.io/v1/endpointslices": "endpointslices",
}
CREATED = "2026-01-01T00:00:00Z"


class ApiServer:
    """What a cluster has; serves it from `start` to `stop`."""

    def __init__(self):
        self.changed = threading.Condition()
        self.version = 100
        self.forgotten = 0  # versions up to this one
        self.objects = {kind: {} for kind in PATHS.values()}
        self.events = {kind: [] for kind in PATHS.values()}  # (version, type, object)
        self.refused = {}  # status by kind
        self.asked = []  # (kind, parameters)
        self.open = set()  # connections of watches
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                server.answer(self)

            def log_message(self, *_):
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._stopping = False
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))

    @property
    def url(self):
        return f"http://127.0.0.1:{self._http.server_port}"

    def start(self):
        self._thread.start()
        return self

    def stop(self):
        with self.changed:
            self._stopping = True
            self.changed.notify_all()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def kubeconfig(self, path):
        """Write a file that leads here."""
        named = {"clusters": ("cluster", {"server": self.url}), "users": ("user", {})}
        named["contexts"] = ("context", {"cluster": "x", "user": "x"})
        found = {key: [{"name": "x", word: value}] for key, (word, value) in named.items()}
        found |= {"apiVersion": "v1", "kind": "Config", "current-context": "x"}
        path.write_text(yaml.safe_dump(found))
        return path

    # ------------------------------------------------------------------ what tests do

    def put(self, kind, found):
        """Make or change an object."""
        with self.changed:
            key = (found["metadata"].get("namespace"), found["metadata"]["name"])
            type_ = "MODIFIED" if key in self.objects[kind] else "ADDED"
            self._event(kind, type_, found)
            self.objects[kind][key] = found

    def delete(self, kind, found):
        with self.changed:
            del self.objects[kind][found["metadata"].get("namespace"), found["metadata"]["name"]]
            self._event(kind, "DELETED", found)

    def bookmark(self, kind):
        """Tell watches the version of now."""
        with self.changed:
            self._event(kind, "BOOKMARK", {"kind": kind, "metadata": {}})

    def forget(self):
        """Forget all versions up to now, as etcd does after minutes."""
        with self.changed:
            self.version += 1
            self.forgotten = self.version

    def disconnect(self):
        """Break all watches."""
        with self.changed:
            self.open.clear()
            self.changed.notify_all()

    def _event(self, kind, type_, found):
        self.version += 1
        found["metadata"]["resourceVersion"] = str(self.version)
        self.events[kind].append((self.version, type_, json.dumps(found)))
        self.changed.notify_all()

    # ------------------------------------------------------------------ what is asked

    def answer(self, request):
        parts = urlsplit(request.path)
        kind = PATHS[parts.path]
        asked = {key: values[0] for key, values in parse_qs(parts.query).items()}
        with self.changed:
            self.asked.append((kind, asked))
            status = self.refused.get(kind)
        if status is not None:
            return self._send(request, status, {"kind": "Status", "message": f"no {kind} for you"})
        if "watch" in asked:
            return self._watch(request, kind, asked)
        return self._list(request, kind, asked)

    def _list(self, request, kind, asked):
        with self.changed:
            after, version = asked.get("continue", f"0/{self.version}").split("/")
            if int(version) < self.forgotten:
                return self._send(request, 410, {"kind": "Status", "message": "expired"})
            keys = list(self.objects[kind])[int(after) :]
            limit = int(asked.get("limit", len(keys) or 1))
            metadata = {"resourceVersion": version}
            if len(keys) > limit:
                metadata["continue"] = f"{int(after) + limit}/{version}"
            items = [self.objects[kind][key] for key in keys[:limit]]
            found = {"metadata": metadata, "items": items}
        return self._send(request, 200, found)

    def _watch(self, request, kind, asked):
        version = int(asked["resourceVersion"])
        if version < self.forgotten:
            gone = {"kind": "Status", "code": 410, "message": "too old resource version"}
            self._begin(request)
            self._chunk(request, {"type": "ERROR", "object": gone})
            return request.wfile.write(b"0\r\n\r\n")
        with self.changed:
            self.open.add(request)
        self._begin(request)
        at = 0
        while True:
            with self.changed:
                while not self._stopping and request in self.open and at == len(self.events[kind]):
                    self.changed.wait()
                events, at = self.events[kind][at:], len(self.events[kind])
                is_over = self._stopping or request not in self.open
            try:
                for when, type_, found in events:
                    if when > version:
                        self._chunk(request, {"type": type_, "object": json.loads(found)})
            except OSError:
                is_over = True
            if is_over:
                request.close_connection = True
                return None  # without a last chunk

    def _begin(self, request):
        request.send_response(200)
        request.send_header("Content-Type", "application/json")
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        request.wfile.flush()

    def _chunk(self, request, event):
        octets = json.dumps(event).encode() + b"\n"
        request.wfile.write(b"%x\r\n%s\r\n" % (len(octets), octets))

    def _send(self, request, status, found):
        octets = json.dumps(found).encode()
        request.send_response(status)
        request.send_header("Content-Length", str(len(octets)))
        request.end_headers()
        request.wfile.write(octets)


def pod(name, address="", namespace="shop", node="node-1", start=CREATED, **more):
    """A pod; `more`: uid, labels, ports, host_network, host, phase, finished."""
    labels, ports = more.get("labels", {}), more.get("ports", ())
    containers = [{"name": "main", "ports": [{"containerPort": port} for port in ports]}]
    status = {"phase": more.get("phase", "Running"), "hostIP": more.get("host", "10.0.0.1")}
    if address:
        status |= {"podIP": address, "podIPs": [{"ip": address}]}
    if start:
        status["startTime"] = start
    if "finished" in more:
        ended = {"terminated": {"finishedAt": more["finished"]}}
        status["containerStatuses"] = [{"name": "main", "state": ended}]
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": more.get("uid", f"uid-{namespace}-{name}"),
            "labels": labels,
            "creationTimestamp": start or CREATED,
        },
        "spec": {
            "nodeName": node,
            "hostNetwork": more.get("host_network", False),
            "containers": containers,
        },
        "status": status,
    }


def service(name, address, namespace="shop", ports=((80, None),)):
    """A service; ports with their node port."""
    listed = [
        {"port": port} | ({"nodePort": of_node} if of_node else {}) for port, of_node in ports
    ]
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-service-{namespace}-{name}",
            "creationTimestamp": CREATED,
        },
        "spec": {"clusterIP": address, "clusterIPs": [address], "ports": listed},
    }


def endpoints(name, of, *pods, others=(), port=8080):
    """An endpoint slice of a service, with pods and addresses of none."""
    found = [
        {
            "addresses": [each["status"].get("podIP", "")],
            "conditions": {"ready": True},
            "targetRef": {"kind": "Pod", "uid": each["metadata"]["uid"]},
        }
        for each in pods
    ]
    found += [{"addresses": [address]} for address in others]
    namespace = pods[0]["metadata"]["namespace"] if pods else "shop"
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-slice-{namespace}-{name}",
            "labels": {"kubernetes.io/service-name": of},
        },
        "endpoints": found,
        "ports": [{"port": port}],
    }


def node(name, address):
    """A node."""
    return {
        "metadata": {"name": name, "uid": f"uid-node-{name}", "creationTimestamp": CREATED},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    }


def namespace(name):
    """A namespace."""
    return {"metadata": {"name": name, "uid": f"uid-namespace-{name}"}}
