"""Renders the Helm chart without a cluster, and finds in what it makes."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.tools import tools
from tests.mill import ROOT

CHART = ROOT / "deploy" / "helm" / "imagemill"
NEEDED: dict[str, Any] = {
    "existingSecret": "imagemill",
    "settings": {"IMAGEMILL_S3_ENDPOINT": "https://s3.example.com"},
}
GPU: dict[str, Any] = {
    "settings": {"IMAGEMILL_S3_ENDPOINT": "minio.storage.svc:9000", "IMAGEMILL_LEASE_SECONDS": 60},
    "existingSecret": "imagemill",
    "controller": {"replicas": 2},
    "certificateAuthorities": {"configMap": "authorities"},
    "onlineRedis": {"existingSecret": "online"},
    "web": {
        "minimum": 2,
        "maximum": 4,
        "hosts": ["mill.example.com", "labels.example.com"],
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "annotations": {"nginx.ingress.kubernetes.io/proxy-body-size": "24m"},
            "tlsSecret": "mill-tls",
        },
        "service": {"type": "NodePort", "annotations": {"example.com/zone": "internal"}},
        "certificate": "web-tls",
        "settings": {"IMAGEMILL_WEB_S3_ENDPOINT": "https://s3.example.com"},
        "existingSecret": "web-keys",
    },
    "networkPolicy": {
        "onlineRedisPort": 6380,
        "onlineRedisPeers": [{"ipBlock": {"cidr": "10.0.0.7/32"}}],
        "apiPeers": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}],
    },
    "pools": {
        "cpu": {"queues": ["classify", "check"], "settings": {"IMAGEMILL_THREADS": 4}},
        "gpu": {
            "image": "imagemill:cuda",
            "queues": ["generate", "train"],
            "gpus": 1,
            "minimum": 0,
            "maximum": 4,
            "graceSeconds": 90,
            "topologySpread": [],
            "nodeSelector": {"gpu": "a100"},
            "tolerations": [{"key": "spot", "operator": "Exists"}],
            "resources": {"requests": {"cpu": 8, "memory": "24Gi"}, "limits": {"memory": "24Gi"}},
        },
    },
}
KEDA = "keda.sh/v1alpha1/ScaledObject"
OPERATOR = tuple(f"monitoring.coreos.com/v1/{kind}" for kind in ("ServiceMonitor", "PodMonitor", "PrometheusRule"))


def helm(*words: str, values: dict[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run Helm on the chart, with no cluster to ask."""
    given = folder / "values.yaml"
    given.write_text(yaml.safe_dump(values))
    command = [str(tools().helm), *words, "-f", str(given)]
    env = {"HOME": str(folder), "PATH": "/usr/bin:/bin", "KUBECONFIG": str(folder / "none")}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=env)


def render(values: dict[str, Any], apis: Sequence[str], folder: Path) -> list[dict[str, Any]]:
    """Return what the chart makes for a cluster that has these APIs beside its own."""
    more = [word for api in apis for word in ("--api-versions", api)]
    done = helm("template", "mill", str(CHART), "--namespace", "images", *more, values=values, folder=folder)
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.safe_load_all(done.stdout) if found]


def of_kind(objects: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {found["metadata"]["name"]: found for found in objects if found["kind"] == kind}


def pods(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The pod specs, by the name of what makes them."""
    made = {name: found["spec"]["template"]["spec"] for name, found in of_kind(objects, "Deployment").items()}
    return made | {name: found["spec"] for name, found in of_kind(objects, "Pod").items()}


def variables(container: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}


def labelled(objects: list[dict[str, Any]], selector: dict[str, Any]) -> list[str]:
    """The names of what makes the pods that a selector of a policy, a budget or a service chooses."""
    found = []
    made = {name: one["spec"]["template"] for name, one in of_kind(objects, "Deployment").items()}
    for name, pod in (made | of_kind(objects, "Pod")).items():
        labels = pod["metadata"]["labels"]
        wanted = selector.get("matchLabels", {}).items() <= labels.items()
        if wanted and all(labels[e["key"]] in e["values"] for e in selector.get("matchExpressions", ())):
            found.append(name)
    return found


def secrets_of(pod: dict[str, Any]) -> set[str]:
    """The secrets in the folder that a pod reads its settings from."""
    [volume] = [volume for volume in pod["volumes"] if volume["name"] == "secrets"]
    if "secret" in volume:
        return {volume["secret"]["secretName"]}
    sources = [source["secret"] for source in volume["projected"]["sources"]]
    assert sources[1]["items"] == [{"key": "imagemill_online_redis_url", "path": "imagemill_online_redis_url"}]
    return {source["name"] for source in sources}
