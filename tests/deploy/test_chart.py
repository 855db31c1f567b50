"""The Helm chart, without a cluster: linted, rendered for several clusters, and compared with Kubernetes' schemas."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from referencing import Registry, Resource

from contract.fleet.pools import read_pools
from contract.settings import Settings
from tests.deploy.chart import CHART, GPU, KEDA, NEEDED, OPERATOR, helm, of_kind, pods, render, variables
from tests.deploy.tools import Definition, tools
from tests.mill import ROOT

CLUSTERS = [(NEEDED, ()), (NEEDED, (KEDA, *OPERATOR)), (GPU, ()), (GPU, (KEDA,)), (GPU, (KEDA, *OPERATOR))]
_KEDA_CRD = Definition(
    "kedacore/keda",
    "v2.20.2",
    "config/crd/bases/keda.sh_scaledobjects.yaml",
    "af35555862a83933b074af14ad439c4b4ceabaf4daa3e9338e9b23e36d308d80",
)
_OPERATOR_CRDS = [
    Definition(
        "prometheus-operator/prometheus-operator",
        "v0.93.0",
        f"example/prometheus-operator-crd/monitoring.coreos.com_{name}.yaml",
        sha256,
    )
    for name, sha256 in {
        "podmonitors": "45a93443daa687d3654f7e9631909ff7edcdf3ec09c5e60251b74aa2722aee5d",
        "servicemonitors": "a99047972c9dd7679ce2050b9968e8a08773492e671b3e17abd476d42aa78a32",
    }.items()
]


@pytest.mark.parametrize("values", [{}, NEEDED, GPU])
def test_it_lints(values: dict[str, Any], tmp_path: Path) -> None:
    done = helm("lint", "--strict", str(CHART), values=values, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("values", "apis"), CLUSTERS)
def test_everything_is_what_kubernetes_knows(values: dict[str, Any], apis: tuple[str, ...], tmp_path: Path) -> None:
    schemas = tools().schemas
    definitions = Resource.from_contents(json.loads((schemas / "_definitions.json").read_text()))
    registry: Registry[Any] = Registry().with_resource("_definitions.json", definitions)
    checked = 0
    for found in render(values, apis, tmp_path):
        group, _, version = found["apiVersion"].rpartition("/")
        if group.endswith(("keda.sh", "coreos.com")):
            continue
        name = "-".join(part for part in (found["kind"].lower(), group.split(".")[0], version) if part)
        schema = json.loads((schemas / f"{name}.json").read_text())
        jsonschema.Draft202012Validator(schema, registry=registry).validate(found)
        checked += 1
    assert checked >= 10


def test_the_schemas_refuse_what_kubernetes_would_refuse(tmp_path: Path) -> None:
    # The check above can fail: a port that is text, and a field with a typo.
    schemas = tools().schemas
    definitions = Resource.from_contents(json.loads((schemas / "_definitions.json").read_text()))
    registry: Registry[Any] = Registry().with_resource("_definitions.json", definitions)
    service = of_kind(render(NEEDED, (), tmp_path), "Service")["mill-controller"]
    validator = jsonschema.Draft202012Validator(
        json.loads((schemas / "service-v1.json").read_text()), registry=registry
    )
    wrong: dict[str, Any]
    for wrong in ({"ports": [{"port": "http"}]}, {"portz": []}):
        with pytest.raises(jsonschema.ValidationError):
            validator.validate({**service, "spec": {**service["spec"], **wrong}})


@pytest.mark.parametrize(("values", "apis"), CLUSTERS)
def test_no_pod_has_more_than_it_needs(values: dict[str, Any], apis: tuple[str, ...], tmp_path: Path) -> None:
    for name, pod in pods(render(values, apis, tmp_path)).items():
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 1000, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), name
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert container["resources"]["limits"]["memory"], name
            # Secrets are files, and no variable comes from one.
            assert not [entry for entry in container["env"] if "secretKeyRef" in entry.get("valueFrom", {})], name
            assert all("secretRef" not in source for source in container["envFrom"]), name


def test_where_keda_is_it_scales_and_elsewhere_the_number_is_fixed(tmp_path: Path) -> None:
    fixed, scaled = render(GPU, (), tmp_path), render(GPU, (KEDA,), tmp_path)
    assert not of_kind(fixed, "ScaledObject")
    workers = of_kind(fixed, "Deployment")
    assert [workers[f"mill-worker-{pool}"]["spec"]["replicas"] for pool in ("cpu", "gpu")] == [1, 1]
    # A number in the chart would undo the scaler's at each upgrade.
    assert "replicas" not in of_kind(scaled, "Deployment")["mill-worker-gpu"]["spec"]
    spec = of_kind(scaled, "ScaledObject")["mill-worker-gpu"]["spec"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (0, 4)
    [trigger] = spec["triggers"]
    assert trigger["metricType"] == "AverageValue" and trigger["metadata"]["targetValue"] == "1"
    port = of_kind(scaled, "Service")["mill-controller"]["spec"]["ports"][0]["port"]
    assert trigger["metadata"]["url"] == f"http://mill-controller.images.svc:{port}/scale/gpu"


def test_the_controller_knows_the_pools_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [controller] = pods(render(GPU, (KEDA,), tmp_path))["mill-controller"]["containers"]
    monkeypatch.setenv("IMAGEMILL_POOLS", variables(controller)["IMAGEMILL_POOLS"])
    policies = read_pools(Settings())
    assert {name: (policy.queues, policy.least, policy.most) for name, policy in policies.items()} == {
        "cpu": (("classify", "check"), 1, 8),
        "gpu": (("generate", "train"), 0, 4),
    }


def test_a_worker_knows_how_long_it_has(tmp_path: Path) -> None:
    pod = pods(render(GPU, (), tmp_path))["mill-worker-gpu"]
    [worker] = pod["containers"]
    assert variables(worker)["IMAGEMILL_GRACE_SECONDS"] == str(pod["terminationGracePeriodSeconds"]) == "90"


def test_a_pool_on_gpus_asks_for_them(tmp_path: Path) -> None:
    pod = pods(render(GPU, (), tmp_path))["mill-worker-gpu"]
    [worker] = pod["containers"]
    assert worker["image"] == "imagemill:cuda" and worker["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert variables(worker)["IMAGEMILL_DEVICE"] == "cuda" and variables(worker)["IMAGEMILL_POOL"] == "gpu"
    assert [toleration["key"] for toleration in pod["tolerations"]] == ["nvidia.com/gpu", "spot"]
    assert "topologySpreadConstraints" not in pod  # an empty list of a pool is not the default's


def test_one_clock_runs_at_a_time(tmp_path: Path) -> None:
    clock = of_kind(render(NEEDED, (), tmp_path), "Deployment")["mill-clock"]["spec"]
    assert clock["replicas"] == 1 and clock["strategy"] == {"type": "Recreate"}


def test_every_variable_that_the_chart_sets_is_a_setting(tmp_path: Path) -> None:
    known = {f"IMAGEMILL_{name.upper()}" for name in Settings.model_fields}
    for pod in pods(render(GPU, (KEDA,), tmp_path)).values():
        for container in pod["containers"]:
            assert {entry["name"] for entry in container["env"]} <= known


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"existingSecret": ""}, "existingSecret is not set"),
        ({"settings": {"IMAGEMILL_S3_ENDPOINT": ""}}, "IMAGEMILL_S3_ENDPOINT is not set"),
        ({"replica": 3}, "replica"),
        ({"pools": {"cpu": {"maximun": 3}}}, "maximun"),
        ({"pools": {"cpu": {"queues": ["clasify"]}}}, "queues"),
        ({"pools": {"cpu": {"minimum": 9}}}, "minimum of 9"),
        ({"pools": {"gpu": {"gpus": 2}}}, "gpus"),  # of which one would be idle
        ({"settings": {**NEEDED["settings"], "IMAGEMILL_S3_SECRET_KEY": "x"}}, "IMAGEMILL_S3_SECRET_KEY"),
        ({"settings": {**NEEDED["settings"], "IMAGEMILL_ONLINE_REDIS_URL": "x"}}, "IMAGEMILL_ONLINE_REDIS_URL"),
        ({"web": {"settings": {"IMAGEMILL_WEB_HOSTS": "x"}}}, "IMAGEMILL_WEB_HOSTS"),
        ({"web": {"minimum": 3}}, "web has a minimum of 3"),
        ({"web": {"ingress": {"enabled": True}}}, "web.hosts is empty"),
        ({"web": {"hosts": ["https://mill.example.com"]}}, "hosts"),
    ],
)
def test_a_mistake_in_the_values_is_named(wrong: dict[str, Any], told: str, tmp_path: Path) -> None:
    done = helm("template", "mill", str(CHART), values={**NEEDED, **wrong}, folder=tmp_path)
    assert done.returncode != 0 and told in done.stderr


def test_the_notes_say_the_next_command(tmp_path: Path) -> None:
    done = helm("install", "mill", str(CHART), "--dry-run=client", values=NEEDED, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "helm test mill --namespace default" in done.stdout and "KEDA is not in this cluster" in done.stdout
    assert "No Redis carries requests" in done.stdout and "http://mill-web.default.svc." in done.stdout
    assert "imagemill tokens create" in done.stdout
    open_ingress = {"hosts": ["mill.example.com"], "ingress": {"enabled": True}}
    done = helm(
        "install", "mill", str(CHART), "--dry-run=client", values={**NEEDED, "web": open_ingress}, folder=tmp_path
    )
    assert "tokens travel unencrypted" in done.stdout and "at mill.example.com." in done.stdout


def test_the_version_is_that_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    package = next(line for line in (ROOT / "pyproject.toml").read_text().splitlines() if line.startswith("version"))
    number = package.split('"')[1].replace(".dev0", "-dev")
    assert chart["version"] == chart["appVersion"] == number


@pytest.mark.parametrize("definition", [_KEDA_CRD, *_OPERATOR_CRDS], ids=lambda found: Path(found.path).stem)
def test_other_peoples_kinds_are_what_they_know(definition: Definition, tmp_path: Path) -> None:
    crd = yaml.safe_load(definition.text())
    schema = _strict(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    made = list(of_kind(render(GPU, (KEDA, *OPERATOR), tmp_path), crd["spec"]["names"]["kind"]).values())
    assert made
    for found in made:
        jsonschema.Draft202012Validator(schema).validate({**found, "metadata": {}})
        with pytest.raises(jsonschema.ValidationError):  # a typo is refused
            jsonschema.Draft202012Validator(schema).validate(
                {**found, "metadata": {}, "spec": {**found["spec"], "x": 1}}
            )


def _strict(schema: Any) -> Any:
    """A schema that refuses unknown fields, as the API server's strict validation does."""
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _strict(part) for name, part in schema.items()}
    if isinstance(found.get("properties"), dict) and found.get("type") == "object":
        found.setdefault("additionalProperties", False)
    return found


def test_the_dockerfile_lints() -> None:
    done = subprocess.run(
        [
            str(tools().hadolint),
            "--failure-threshold",
            "info",
            "--ignore",
            "DL3042",
            str(ROOT / "deploy/docker/Dockerfile"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
