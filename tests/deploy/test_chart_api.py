"""The HTTP API and the Redis of served models in the Helm chart: who reaches what, by which names, with which keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from contract.settings import Settings
from contract.telemetry.server import parse_ports
from producer.web import serve
from producer.web.app import names_of
from tests.deploy.chart import (
    CHART,
    GPU,
    NEEDED,
    OPERATOR,
    helm,
    labelled,
    of_kind,
    pods,
    render,
    secrets_of,
    variables,
)


@pytest.mark.parametrize("values", [NEEDED, GPU])
def test_a_request_comes_to_the_api_by_each_name_that_leads_there(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = render(values, (), tmp_path)
    [web] = pods(made)["mill-web"]["containers"]
    for name, value in variables(web).items():
        monkeypatch.setenv(name, value) if "WEB" in name else None
    # A name leads to the service, a port of that to the port of the pods, on which the API listens.
    service = of_kind(made, "Service")["mill-web"]["spec"]
    assert labelled(made, {"matchLabels": service["selector"]}) == ["mill-web"]
    # The port for machines is not among them: a Service may lead to the world.
    [port], (opened, machines) = service["ports"], web["ports"]
    assert machines["name"] == "metrics"
    assert port["targetPort"] == opened["name"] and opened["containerPort"] == Settings().web_port
    assert Settings().web_host == "0.0.0.0"
    hosts = ["mill-web", "mill-web.images.svc", "mill-web.images.svc.cluster.local"]
    for ingress in of_kind(made, "Ingress").values():
        hosts += [rule["host"] for rule in ingress["spec"]["rules"]]
        assert [host for entry in ingress["spec"]["tls"] for host in entry["hosts"]] == values["web"]["hosts"]
        for rule in ingress["spec"]["rules"]:
            [path] = rule["http"]["paths"]
            assert path["backend"]["service"] == {"name": "mill-web", "port": {"name": port["name"]}}
    assert set(hosts) <= names_of(Settings())


def test_the_api_speaks_tls_where_it_has_a_certificate(tmp_path: Path) -> None:
    for values, scheme, number in ((NEEDED, "http", 80), (GPU, "https", 443)):
        made = render(values, (), tmp_path)
        pod = pods(made)["mill-web"]
        [web] = pod["containers"]
        for probe, path in (("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
            assert web[probe]["httpGet"] == {"path": path, "port": scheme, "scheme": scheme.upper()}
        assert of_kind(made, "Service")["mill-web"]["spec"]["ports"][0]["port"] == number
        files = [word for word in web["command"] if word.startswith("/")]
        assert len(files) == (2 if scheme == "https" else 0)
        mounts = {mount["mountPath"]: mount["name"] for mount in web["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for file in files:
            assert volumes[mounts[str(Path(file).parent)]]["secret"]["secretName"] == "web-tls"


def test_the_api_has_an_identity_of_its_own_and_time_to_leave(tmp_path: Path) -> None:
    made = render(GPU, (), tmp_path)
    pod = pods(made)["mill-web"]
    assert pod["serviceAccountName"] == "mill-web" and "mill-web" in of_kind(made, "ServiceAccount")
    assert secrets_of(pod) == {"web-keys", "online"}
    [web] = pod["containers"]
    pause = int(web["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pause + serve._GRACE_SECONDS < pod["terminationGracePeriodSeconds"]


def test_workers_api_and_doctor_alone_know_and_reach_the_redis_of_requests(tmp_path: Path) -> None:
    made = render(GPU, (), tmp_path)
    serving = ["mill-doctor", "mill-web", "mill-worker-cpu", "mill-worker-gpu"]
    assert sorted(name for name, pod in pods(made).items() if "online" in secrets_of(pod)) == serving
    policy = of_kind(made, "NetworkPolicy")["mill-online"]["spec"]
    assert sorted(labelled(made, policy["podSelector"])) == serving
    assert policy["egress"] == [{"ports": [{"port": 6380}], "to": GPU["networkPolicy"]["onlineRedisPeers"]}]
    # Without a secret there is no hole; with the URL in the common secret there is one, and it is mounted once.
    assert "mill-online" not in of_kind(render(NEEDED, (), tmp_path), "NetworkPolicy")
    common = render({**NEEDED, "onlineRedis": {"existingSecret": "imagemill"}}, (), tmp_path)
    assert secrets_of(pods(common)["mill-web"]) == {"imagemill"}
    assert "mill-online" in of_kind(common, "NetworkPolicy")


def test_who_reaches_the_api_and_what_it_reaches(tmp_path: Path) -> None:
    made = render(GPU, (), tmp_path)
    policies = of_kind(made, "NetworkPolicy")
    assert labelled(made, policies["mill-api"]["spec"]["podSelector"]) == ["mill-web"]
    [entry] = policies["mill-api"]["spec"]["ingress"]
    assert entry == {"ports": [{"port": 8080}], "from": GPU["networkPolicy"]["apiPeers"]}
    # It fetches images from the web as workers do, and the controller posts to webhooks; the clock does neither.
    reaches = labelled(made, policies["mill-web"]["spec"]["podSelector"])
    assert sorted(reaches) == ["mill-controller", "mill-web", "mill-worker-cpu", "mill-worker-gpu"]


def test_prometheus_scrapes_the_pods_of_the_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = render({**GPU, "metricsPort": 9500}, OPERATOR, tmp_path)
    [web] = pods(made)["mill-web"]["containers"]
    for name, value in variables(web).items():
        monkeypatch.setenv(name, value) if "METRICS" in name else None
    # The process listens where the pod says, and the monitor asks there, at the pods of the API alone,
    monitor = of_kind(made, "PodMonitor")["mill-web"]["spec"]
    assert labelled(made, monitor["selector"]) == ["mill-web"]
    [endpoint] = monitor["podMetricsEndpoints"]
    ports = {port["name"]: port["containerPort"] for port in web["ports"]}
    assert list(parse_ports(Settings().metrics_port)) == [ports[endpoint["port"]]] == [9500]
    assert Settings().metrics_host == "0.0.0.0" and endpoint["path"] == "/metrics"
    # which the network lets it do; clients come to the other port.
    policy = of_kind(made, "NetworkPolicy")["mill"]["spec"]
    assert "mill-web" in labelled(made, policy["podSelector"])
    assert [port["port"] for entry in policy["ingress"] for port in entry["ports"]] == [9500]
    # One port cannot be both.
    both = helm("template", "mill", str(CHART), values={**NEEDED, "metricsPort": 8080}, folder=tmp_path)
    assert both.returncode != 0 and "metricsPort is 8080" in both.stderr


def test_the_api_is_scaled_by_cpu_where_its_number_may_vary(tmp_path: Path) -> None:
    fixed, scaled = render(NEEDED, (), tmp_path), render(GPU, (), tmp_path)
    assert of_kind(fixed, "Deployment")["mill-web"]["spec"]["replicas"] == 1
    assert not of_kind(fixed, "HorizontalPodAutoscaler") and "mill-web" not in of_kind(fixed, "PodDisruptionBudget")
    assert "replicas" not in of_kind(scaled, "Deployment")["mill-web"]["spec"]
    spec = of_kind(scaled, "HorizontalPodAutoscaler")["mill-web"]["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"], spec["scaleTargetRef"]["name"]) == (2, 4, "mill-web")
    # A share of what is asked for needs something that is asked for.
    [web] = pods(scaled)["mill-web"]["containers"]
    assert web["resources"]["requests"]["cpu"]
    budget = of_kind(scaled, "PodDisruptionBudget")["mill-web"]["spec"]
    assert labelled(scaled, budget["selector"]) == ["mill-web"]


def test_without_the_api_nothing_of_it_is_there(tmp_path: Path) -> None:
    made = render({**NEEDED, "web": {"enabled": False, "ingress": {"enabled": True}}}, OPERATOR, tmp_path)
    assert not [found for found in made if found["metadata"]["labels"].get("app.kubernetes.io/component") == "web"]
