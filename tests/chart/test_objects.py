"""What the chart makes: valid objects, that may do no more than they need to."""

from __future__ import annotations

import pytest

from services.runtime.settings import (
    CaptureSettings,
    GatewaySettings,
    QuerySettings,
    SchedulerSettings,
    ServiceSettings,
)
from tests.chart.rendered import (
    CHART,
    NAMESPACE,
    Object,
    environment,
    pod,
    render,
    tap,
    volume,
)

pytestmark = pytest.mark.helm

EVERYTHING = {
    "logLevel": "debug",
    "tap": {
        "docker": {
            "registry": "registry.example.com:5000/team",
            "imagePullSecrets": ["pull"],
            "imagePullPolicy": "Never",
        },
        "persistentStorage": True,
        "storageClass": "",
        "storageLimit": "5Gi",
        "labels": {"team": "net"},
        "annotations": {"example.com/owner": "net"},
        "priorityClass": "system-node-critical",
        "nodeSelectorTerms": {"hub": [], "workers": []},
        "tolerations": {"hub": [{"operator": "Exists"}], "workers": []},
        "resources": {"hub": {"limits": {"cpu": 2, "memory": "1Gi"}}},
    },
}
"""The other branch of every choice that the templates make."""

SETTINGS: dict[str, type[ServiceSettings]] = {
    "capture": CaptureSettings,
    "scheduler": SchedulerSettings,
    "query": QuerySettings,
    "gateway": GatewaySettings,
}

every_way = pytest.mark.parametrize(
    "values",
    [{}, tap(persistentStorage=True), EVERYTHING],
    ids=["defaults", "claim", "everything"],
)


@every_way
def test_lint_finds_nothing(values: Object) -> None:
    import helm_python

    report = helm_python.lint(CHART, values, strict=True, namespace=NAMESPACE)
    assert report["errors"] == []
    warnings = [m for m in report["messages"] if m["severity"] > 1]
    assert warnings == []


@every_way
@pytest.mark.parametrize("version", ["1.27", "1.30", "1.37"])
def test_kubernetes_takes_every_object(values: Object, version: str) -> None:
    import kubernetes_validate

    objects = render(values).objects
    assert objects
    for found in objects:
        kubernetes_validate.validate(found, version, strict=True)


def test_the_objects_are_those() -> None:
    names = sorted(f"{o['kind']}/{o['metadata']['name']}" for o in render().objects)
    assert names == [
        "ClusterRole/rec-traffic-recorder-capture-observe",
        "ClusterRoleBinding/rec-traffic-recorder-capture-observe",
        "DaemonSet/rec-traffic-recorder-capture",
        "Service/rec-traffic-recorder-gateway",
        "Service/rec-traffic-recorder-query",
        "Service/rec-traffic-recorder-scheduler",
        "ServiceAccount/rec-traffic-recorder-capture",
        "ServiceAccount/rec-traffic-recorder-scheduler",
        "StatefulSet/rec-traffic-recorder-scheduler",
    ]


@every_way
def test_no_container_may_more_than_it_needs(values: Object) -> None:
    containers = render(values).containers
    assert set(containers) == {"capture", "scheduler", "query", "gateway"}
    for name, container in containers.items():
        context = container["securityContext"]
        assert context["privileged"] is False
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"]["drop"] == ["ALL"]
        added = context["capabilities"].get("add", [])
        assert added == (["NET_RAW"] if name == "capture" else [])


@every_way
def test_pods_have_no_way_to_the_node_but_the_network_of_the_agents(values: Object) -> None:
    rendered = render(values)
    for workload in (rendered.agents, rendered.scheduler):
        spec = pod(workload)
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        is_asking = bool(rendered.of_kind("ClusterRole")) and workload is rendered.agents
        assert spec["automountServiceAccountToken"] is is_asking
        assert "hostPID" not in spec
        assert "hostIPC" not in spec
        assert not [v for v in spec["volumes"] if "hostPath" in v]
        assert "initContainers" not in spec
    assert pod(rendered.agents)["hostNetwork"] is True
    assert "hostNetwork" not in pod(rendered.scheduler)
    # Without it, a pod on the node's network does not find the scheduler's name.
    assert pod(rendered.agents)["dnsPolicy"] == "ClusterFirstWithHostNet"


def test_agents_may_read_what_has_names_and_nothing_else() -> None:
    rendered = render(release="shop")
    role, binding = rendered.only("ClusterRole"), rendered.only("ClusterRoleBinding")
    may = {
        (group, resource): rule["verbs"]
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    core = {("", kind) for kind in ("namespaces", "nodes", "pods", "services")}
    assert set(may) == {*core, ("discovery.k8s.io", "endpointslices")}
    assert all(verbs == ["get", "list", "watch"] for verbs in may.values())
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    (subject,) = binding["subjects"]
    assert subject["name"] == pod(rendered.agents)["serviceAccountName"]
    assert subject["namespace"] == NAMESPACE
    assert environment(rendered.containers["capture"])["RECORDER_KUBE"] == "in-cluster"


def test_targets_reach_the_agents_and_are_what_they_read() -> None:
    from services.capture.targets import ALL_PODS, read

    assert render().of_kind("ConfigMap") == []
    given = {"regex": '^cart"\\d', "namespaces": ["shop"], "excludedNamespaces": ["kube-system"]}
    for key, value in given.items():
        rendered = render(tap(**{key: value}))
        mapped = rendered.only("ConfigMap")
        container = rendered.containers["capture"]
        folder, _, file = environment(container)["RECORDER_TARGETS"].rpartition("/")
        assert read(mapped["data"][file]) != ALL_PODS
        mounted = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
        assert mounted["targets"] == folder
        named = volume(rendered.agents, "targets")["configMap"]["name"]
        assert named == mapped["metadata"]["name"]


def test_targets_without_names_are_refused() -> None:
    with pytest.raises(Exception, match="without it agents know no pods"):
        render(tap(namespaces=["shop"], identity={"enabled": False}))


def test_a_filter_of_the_operator_reaches_the_agents() -> None:
    container = render(tap(bpfOverride="tcp port 80")).containers["capture"]
    assert environment(container)["RECORDER_BPF"] == "tcp port 80"
    assert "RECORDER_BPF" not in environment(render().containers["capture"])


def test_agents_that_are_to_know_no_names_ask_nobody() -> None:
    rendered = render(tap(identity={"enabled": False}))
    assert rendered.of_kind("ClusterRole") == rendered.of_kind("ClusterRoleBinding") == []
    assert "RECORDER_KUBE" not in environment(rendered.containers["capture"])
    assert pod(rendered.agents)["automountServiceAccountToken"] is False


def test_scheduler_and_query_are_not_root_and_own_their_volume() -> None:
    context = pod(render().scheduler)["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == 10001
    assert context["fsGroup"] == 10001


@every_way
def test_every_setting_that_a_service_is_given_exists_and_is_right(
    values: Object, monkeypatch: pytest.MonkeyPatch
) -> None:
    from services.runtime.settings import PREFIX, load

    for name, container in render(values).containers.items():
        with monkeypatch.context() as variables:
            for variable, value in environment(container).items():
                assert variable.startswith(PREFIX)
                field = variable.removeprefix(PREFIX).lower()
                assert field in SETTINGS[name].model_fields, variable
                variables.setenv(variable, value)
            load(SETTINGS[name], {})


def test_an_agent_knows_its_node_and_finds_the_scheduler() -> None:
    rendered = render(release="shop")
    variables = environment(rendered.containers["capture"])
    assert variables["RECORDER_NODE"] == "spec.nodeName"
    assert variables["RECORDER_NODE_IP"] == "status.hostIP"
    host, _, port = variables["RECORDER_SCHEDULER"].rpartition(":")
    service = next(
        s for s in rendered.of_kind("Service") if s["metadata"]["name"].endswith("scheduler")
    )
    assert host == f"{service['metadata']['name']}.{NAMESPACE}.svc"
    assert port == str(service["spec"]["ports"][0]["port"])


@pytest.mark.parametrize(
    ("name", "port"), [("scheduler", 8897), ("query", 8898), ("gateway", 8899)]
)
def test_a_service_leads_to_its_container(name: str, port: int) -> None:
    rendered = render()
    service = next(s for s in rendered.of_kind("Service") if s["metadata"]["name"].endswith(name))
    (service_port,) = service["spec"]["ports"]
    container = rendered.containers[name]
    (container_port,) = container["ports"]
    assert service_port["port"] == container_port["containerPort"] == port
    assert service_port["targetPort"] == container_port["name"]
    assert environment(container)["RECORDER_LISTEN"].endswith(f":{port}")
    labels = rendered.scheduler["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()


@pytest.mark.parametrize(("name", "port"), [("scheduler", 8897), ("query", 8898)])
def test_probes_ask_the_server(name: str, port: int) -> None:
    container = render().containers[name]
    assert container["startupProbe"]["grpc"] == {"port": port}
    assert container["readinessProbe"]["grpc"] == {"port": port}
    # One that serves as many calls as it can refuses the probe as well, and must not be restarted.
    assert container["livenessProbe"]["tcpSocket"] == {"port": port}


def test_the_gateway_is_ready_when_what_it_asks_is() -> None:
    container = render().containers["gateway"]
    assert container["readinessProbe"]["httpGet"] == {"path": "/health", "port": 8899}
    assert container["livenessProbe"]["tcpSocket"] == {"port": 8899}
    assert environment(container)["RECORDER_SCHEDULER"] == "127.0.0.1:8897"
    assert environment(container)["RECORDER_QUERY"] == "127.0.0.1:8898"


def test_the_gateway_is_known_by_the_names_of_its_service() -> None:
    from services.gateway.origins import Origins
    from services.gateway.problems import ProblemError
    from services.runtime.settings import load

    values = tap(gateway={"hosts": ["rec.example.com"], "corsOrigins": ["https://a.example.com"]})
    variables = environment(render(values).containers["gateway"])
    given = {name: variables[f"RECORDER_{name.upper()}"] for name in ("hosts", "cors_origins")}
    settings = load(GatewaySettings, given)
    assert settings.cors_origins == ["https://a.example.com"]
    origins = Origins(settings.hosts)
    service = f"rec-traffic-recorder-gateway.{NAMESPACE}.svc.cluster.local"
    for host in (service, service.removesuffix(".cluster.local"), "rec.example.com", "10.1.2.3"):
        origins.check(f"{host}:8899", "")
    with pytest.raises(ProblemError):
        origins.check("evil.example.com", "")
    assert "RECORDER_CORS_ORIGINS" not in environment(render().containers["gateway"])


def test_without_the_gateway_nothing_of_it_is_there() -> None:
    rendered = render(tap(gateway={"enabled": False}))
    assert "gateway" not in rendered.containers
    assert len(rendered.of_kind("Service")) == 2
    assert not [v for v in pod(rendered.scheduler)["volumes"] if "gateway" in v["name"]]


@every_way
def test_selectors_find_their_pods(values: Object) -> None:
    rendered = render(values)
    selectors = []
    for workload in (rendered.agents, rendered.scheduler):
        selector = workload["spec"]["selector"]["matchLabels"]
        assert selector.items() <= workload["spec"]["template"]["metadata"]["labels"].items()
        selectors.append(selector)
    assert selectors[0] != selectors[1]


def test_volumes_are_mounted_where_the_services_write() -> None:
    rendered = render()
    for name, container in rendered.containers.items():
        mounts = {m["mountPath"]: m for m in container["volumeMounts"]}
        assert "/tmp" in mounts, name
    mounts = {
        m["mountPath"]: m.get("readOnly", False)
        for m in rendered.containers["query"]["volumeMounts"]
    }
    assert mounts == {"/data": True, "/tmp": False}
    assert environment(rendered.containers["scheduler"])["RECORDER_DATA"] == "/data"


def test_query_may_spill_to_disk_without_being_evicted() -> None:
    from services.query.engine import MAX_SPILL_BYTES
    from tests.chart.rendered import octets, volume

    room = volume(render().scheduler, "query-tmp")["emptyDir"]["sizeLimit"]
    assert octets(room) > MAX_SPILL_BYTES


def test_a_long_release_name_still_makes_names_that_kubernetes_takes() -> None:
    for found in render(release="a" * 53).objects:
        # Names of roles are no labels, and nothing is added to them.
        most = 253 if found["kind"].startswith("ClusterRole") else 63 - len("-1234567890")
        assert len(found["metadata"]["name"]) <= most
    assert render(release="traffic-recorder").agents["metadata"]["name"] == (
        "traffic-recorder-capture"
    )
