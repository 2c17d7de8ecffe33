"""What each value of the chart does, and what happens to values that are wrong."""

from __future__ import annotations

import re

import pytest
import yaml

from services.runtime.settings import (
    CaptureSettings,
    QuerySettings,
    SchedulerSettings,
    load,
)
from services.runtime.values import octets
from tests.chart.rendered import CHART, Object, environment, pod, render, tap, volume
from tests.chart.rendered import octets as quantity

pytestmark = pytest.mark.helm


def images(values: Object) -> dict[str, str]:
    return {name: found["image"] for name, found in render(values).containers.items()}


# Storage


@pytest.mark.parametrize("limit", ["500Mi", "5Gi", "1.5Gi", "2G", "1Mi", "1Ti", 524288000])
@pytest.mark.parametrize("persistent", [False, True], ids=["emptyDir", "claim"])
def test_the_volume_is_larger_than_what_recordings_may_take(
    limit: str | int, persistent: bool
) -> None:
    rendered = render(tap(storageLimit=limit, persistentStorage=persistent))
    told = environment(rendered.containers["scheduler"])["RECORDER_STORAGE_LIMIT"]
    assert octets(told) == octets(limit)
    data = volume(rendered.scheduler, "data")
    if persistent:
        claim = rendered.only("PersistentVolumeClaim")
        assert data["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        size = claim["spec"]["resources"]["requests"]["storage"]
    else:
        assert rendered.of_kind("PersistentVolumeClaim") == []
        size = data["emptyDir"]["sizeLimit"]
    assert quantity(size) >= octets(told) * 1.1 + (255 << 20)


def test_recordings_on_s3_reach_scheduler_and_query() -> None:
    archive, storage = "s3://bucket/copies?region=eu-central-1", "s3://bucket/living"
    remote = {"archive": archive, "secret": "keys", "cacheLimit": "3Gi"}
    rendered = render(tap(remote=remote))
    scheduler, query = (rendered.containers[name] for name in ("scheduler", "query"))
    assert environment(scheduler)["RECORDER_ARCHIVE"] == archive
    assert environment(query)["RECORDER_DATA"] == f"/data,{archive}"
    assert octets(environment(query)["RECORDER_CACHE_LIMIT"]) == 3 << 30
    for container in (scheduler, query):
        assert container["envFrom"] == [{"secretRef": {"name": "keys"}}]
        assert "RECORDER_STORAGE" not in environment(container)
    room = volume(rendered.scheduler, "query-tmp")["emptyDir"]["sizeLimit"]
    assert quantity(room) > (4 << 30) + (3 << 30)
    rendered = render(tap(remote={"storage": storage}))
    for name in ("scheduler", "query"):
        assert environment(rendered.containers[name])["RECORDER_STORAGE"] == storage
        assert "envFrom" not in rendered.containers[name]
        assert "RECORDER_ARCHIVE" not in environment(rendered.containers[name])


@pytest.mark.parametrize("url", ["bucket", "gs://bucket/a", "s3://key:secret@bucket/a", "s3://"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(Exception, match="archive"):
        render(tap(remote={"archive": url}))


def test_the_default_limit_is_that_of_the_scheduler() -> None:
    told = environment(render().containers["scheduler"])["RECORDER_STORAGE_LIMIT"]
    assert octets(told) == SchedulerSettings.model_fields["storage_limit"].default == 500 << 20


def test_a_pod_asks_the_node_for_the_disk_that_it_may_use_and_sets_itself_no_limit() -> None:
    rendered = render(tap(storageLimit="5Gi"))
    data = volume(rendered.scheduler, "data")["emptyDir"]["sizeLimit"]
    requests = rendered.containers["scheduler"]["resources"]["requests"]
    assert requests["ephemeral-storage"] == data
    for container in rendered.containers.values():
        assert "ephemeral-storage" in container["resources"]["requests"]
        assert "ephemeral-storage" not in container["resources"].get("limits", {})


def test_a_claim_outlives_the_release_and_has_its_class() -> None:
    claim = render(tap(persistentStorage=True, storageClass="fast")).only("PersistentVolumeClaim")
    assert claim["spec"]["storageClassName"] == "fast"
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    default = render(tap(persistentStorage=True, storageClass="")).only("PersistentVolumeClaim")
    assert "storageClassName" not in default["spec"]


# Images


def test_without_a_registry_the_nodes_have_the_images() -> None:
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    names = ("capture", "scheduler", "query", "gateway")
    assert images({}) == {name: f"traffic-recorder-{name}:{version}" for name in names}
    for container in render().containers.values():
        assert container["imagePullPolicy"] == "IfNotPresent"


@pytest.mark.parametrize("registry", ["ghcr.io/acme", "ghcr.io/acme/"])
def test_registry_and_tag(registry: str) -> None:
    docker = {"registry": registry, "tag": "1.2.3"}
    assert images(tap(docker=docker))["query"] == "ghcr.io/acme/traffic-recorder-query:1.2.3"
    container = render(tap(docker=docker)).containers["query"]
    assert container["imagePullPolicy"] == "Always"


def test_a_tag_that_is_not_locked_follows_patch_releases() -> None:
    assert images(tap(docker={"tagLocked": False}))["capture"].endswith(":0.1")


def test_single_images_may_be_others() -> None:
    docker = {"overrideImage": {"worker": "a.io/b@sha256:0"}, "overrideTag": {"hub": "debug"}}
    found = images(tap(docker=docker))
    assert found["capture"] == "a.io/b@sha256:0"
    assert found["scheduler"] == "traffic-recorder-scheduler:debug"
    assert found["query"].endswith(":0.1.0")


def test_pull_policy_and_secrets() -> None:
    rendered = render(tap(docker={"imagePullPolicy": "Never", "imagePullSecrets": ["one", "two"]}))
    for workload in (rendered.agents, rendered.scheduler):
        assert pod(workload)["imagePullSecrets"] == [{"name": "one"}, {"name": "two"}]
        assert {c["imagePullPolicy"] for c in pod(workload)["containers"]} == {"Never"}
    assert "imagePullSecrets" not in pod(render().agents)


# Placement, resources, labels


def test_placement() -> None:
    term = {"matchExpressions": [{"key": "pool", "operator": "In", "values": ["edge"]}]}
    rendered = render(
        tap(
            nodeSelectorTerms={"workers": [term]},
            tolerations={"hub": [{"operator": "Exists"}], "workers": []},
            priorityClass="high",
        )
    )
    agents, scheduler = pod(rendered.agents), pod(rendered.scheduler)
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    assert agents["affinity"]["nodeAffinity"][required]["nodeSelectorTerms"] == [term]
    (linux,) = scheduler["affinity"]["nodeAffinity"][required]["nodeSelectorTerms"]
    assert linux["matchExpressions"][0]["key"] == "kubernetes.io/os"
    assert scheduler["tolerations"] == [{"operator": "Exists"}]
    assert "tolerations" not in agents
    assert agents["priorityClassName"] == scheduler["priorityClassName"] == "high"
    assert "affinity" not in pod(render(tap(nodeSelectorTerms={"workers": []})).agents)


def test_resources_where_0_is_no_limit() -> None:
    given = {
        "sniffer": {
            "limits": {"cpu": "2", "memory": 0},
            "requests": {"cpu": 0, "ephemeral-storage": "1Gi"},
        }
    }
    resources = render(tap(resources=given)).containers["capture"]["resources"]
    assert resources == {
        "limits": {"cpu": "2"},
        "requests": {"memory": "512Mi", "ephemeral-storage": "1Gi"},
    }
    assert "cpu" not in render().containers["scheduler"]["resources"]["limits"]


def test_labels_and_annotations_are_everywhere_and_never_break_a_selector() -> None:
    labels = {"team": "net", "app.kubernetes.io/component": "mine"}
    rendered = render(tap(labels=labels, annotations={"a": "b"}, persistentStorage=True))
    for found in rendered.objects:
        assert found["metadata"]["labels"]["team"] == "net"
        assert found["metadata"]["annotations"]["a"] == "b"
    for workload in (rendered.agents, rendered.scheduler):
        template = workload["spec"]["template"]["metadata"]
        assert template["labels"]["team"] == "net"
        assert template["annotations"] == {"a": "b"}
        assert workload["spec"]["selector"]["matchLabels"].items() <= template["labels"].items()


# Settings of the services


def test_pods_get_more_time_to_end_than_the_services_take_to_drain() -> None:
    for seconds in (25, 300):
        rendered = render(tap(drainSeconds=seconds))
        for workload in (rendered.agents, rendered.scheduler):
            assert pod(workload)["terminationGracePeriodSeconds"] >= seconds + 10
        for container in rendered.containers.values():
            assert environment(container)["RECORDER_GRACE_SECONDS"] == str(seconds)


def test_what_agents_and_query_are_told() -> None:
    rendered = render(
        {
            "logLevel": "debug",
            "tap": {
                "capture": {"interfaces": ["eth0", "cni0"], "packetMemory": "1Gi"},
                "query": {"memoryLimit": "1G", "threads": 4, "deadlineSeconds": 7.5},
                "probes": {"hub": {"periodSeconds": 30}},
                "misc": {"trafficSampleRate": 12.5},
            },
        }
    )
    capture = environment(rendered.containers["capture"])
    assert capture["RECORDER_INTERFACE"] == "eth0,cni0"
    assert capture["RECORDER_PACKET_MEMORY"] == str(1 << 30)
    assert load(CaptureSettings, {"sample": capture["RECORDER_SAMPLE"]}).sample == 12.5
    query = environment(rendered.containers["query"])
    assert query["RECORDER_MEMORY_LIMIT"] == "1000000000"
    assert query["RECORDER_THREADS"] == "4"
    assert query["RECORDER_DEADLINE_SECONDS"] == "7.5"
    assert rendered.containers["query"]["readinessProbe"]["periodSeconds"] == 30
    for container in rendered.containers.values():
        assert environment(container)["RECORDER_LOG_LEVEL"] == "debug"


def test_defaults_are_those_of_the_services() -> None:
    containers = render().containers
    capture = environment(containers["capture"])
    for variable, field in (
        ("RECORDER_PACKET_MEMORY", "packet_memory"),
        ("RECORDER_RING_MEMORY", "ring_memory"),
        ("RECORDER_UPLINK_MEMORY", "uplink_memory"),
    ):
        assert int(capture[variable]) == CaptureSettings.model_fields[field].default
    assert capture["RECORDER_SAMPLE"] == str(CaptureSettings.model_fields["sample"].default)
    query = environment(containers["query"])
    assert int(query["RECORDER_THREADS"]) == QuerySettings.model_fields["threads"].default
    deadline = QuerySettings.model_fields["deadline_seconds"].default
    assert float(query["RECORDER_DEADLINE_SECONDS"]) == deadline


# Notes


def test_notes_say_how_to_begin_and_what_becomes_of_recordings() -> None:
    notes = render().notes
    assert "port-forward statefulset/rec-traffic-recorder-scheduler 8897 8898" in notes
    assert "gone with the" in notes
    assert "do nothing" not in notes
    kept = render(tap(persistentStorage=True)).notes
    assert "delete pvc rec-traffic-recorder-recordings" in kept


def test_values_that_do_nothing_are_accepted_and_named() -> None:
    values: Object = {"license": "x", "tap": {"serviceMesh": True, "dryRun": False}}
    assert "do nothing in this version: tap.dryRun, tap.serviceMesh." in render(values).notes
    values = tap(misc={"jsonTTL": "5m", "trafficSampleRate": 50})
    assert "do nothing in this version: tap.misc.jsonTTL." in render(values).notes


# Wrong values


@pytest.mark.parametrize(
    ("values", "where", "why"),
    [
        (tap(storageLimit="lots"), "/tap/storageLimit", "'lots' does not match"),
        (tap(storageLimit="500m"), "/tap/storageLimit", "'500m' does not match"),
        (tap(storageLimit="-1Gi"), "/tap/storageLimit", "'-1Gi' does not match"),
        (tap(storageLimit=-1), "/tap/storageLimit", "got -1, want 1"),
        (tap(storageLimit=True), "/tap/storageLimit", "got boolean"),
        (tap(persistentStorage="yes"), "/tap/persistentStorage", "want boolean"),
        (tap(drainSeconds=0), "/tap/drainSeconds", "want 1"),
        (tap(docker={"imagePullPolicy": "No"}), "/tap/docker/imagePullPolicy", "'Always'"),
        (tap(docker={"registry": "a b"}), "/tap/docker/registry", "'a b' does not match"),
        (tap(docker={"tag": "a/b"}), "/tap/docker/tag", "'a/b' does not match"),
        (tap(docker={"imagePullSecrets": [{"name": "a"}]}), "/imagePullSecrets/0", "want string"),
        (tap(resources={"hub": {"limit": {}}}), "/tap/resources/hub", "'limit' not allowed"),
        (tap(resources={"hub": {"limits": {"cpu": "x"}}}), "/hub/limits/cpu", "does not match"),
        (tap(capture={"interfaces": []}), "/tap/capture/interfaces", "want 1"),
        (tap(capture={"interfaces": ["a,b"]}), "/tap/capture/interfaces/0", "does not match"),
        (tap(misc={"trafficSampleRate": 0}), "/misc/trafficSampleRate", "want 0"),
        (tap(misc={"trafficSampleRate": 101}), "/misc/trafficSampleRate", "want 100"),
        (tap(misc={"trafficSampleRate": "1%"}), "/misc/trafficSampleRate", "want number"),
        (tap(customMacros={"a b": "dns"}), "/tap/customMacros", "'a b' not allowed"),
        (tap(customMacros={"a": 1}), "/tap/customMacros/a", "want string"),
        (tap(labels={"a": 1}), "/tap/labels/a", "want string"),
        (tap(tolerations={"hub": {}}), "/tap/tolerations/hub", "want array"),
        ({"logLevel": "loud"}, "/logLevel", "'warning'"),
        ({"tap": []}, "/tap", "want object"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place_and_the_reason(
    values: Object, where: str, why: str
) -> None:
    import helm_python

    with pytest.raises(helm_python.HelmError) as refused:
        render(values)
    (finding,) = [line for line in str(refused.value).splitlines() if line.startswith("- at")]
    assert re.search(f"{re.escape(where)}'", finding)
    assert why in finding


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            tap(storageLimit="10k"),
            "tap.storageLimit: 10k is too little; write a size of at least 1Mi.",
        ),
        (
            tap(query={"memoryLimit": "1Mi"}),
            "tap.query.memoryLimit: 1Mi is too little; write a size of at least 32Mi.",
        ),
        (
            tap(storageLimit="9999999Ti"),
            "tap.storageLimit: 9999999Ti is more than any volume has; "
            "write a size as 500Mi or 5Gi.",
        ),
    ],
)
def test_a_size_out_of_range_is_refused_with_a_sentence(values: Object, sentence: str) -> None:
    import helm_python

    with pytest.raises(helm_python.HelmError) as refused:
        render(values)
    assert sentence in str(refused.value)


# Operators' words


def macros_of(values: Object | None = None) -> list[dict[str, str]]:
    """What scheduler and query service make of their environment, as the kubelet gives it."""
    containers = render(values or {}).containers
    assert "RECORDER_MACROS" not in environment(containers["capture"])
    return [
        load(
            model, {"macros": environment(containers[name])["RECORDER_MACROS"].replace("$$", "$")}
        ).macros
        for name, model in (("scheduler", SchedulerSettings), ("query", QuerySettings))
    ]


def test_words_reach_scheduler_and_query() -> None:
    https = {"https": "tls and (http or http2)"}
    assert macros_of() == [https, https]
    mine = {"odd": 'path == r"^/a&b<(c|d)$" or url.contains("$(RECORDER_DATA) \'x\'")'}
    both = https | mine
    assert macros_of(tap(customMacros=mine)) == [both, both]
    assert macros_of(tap(customMacros={"https": None})) == [{}, {}]
