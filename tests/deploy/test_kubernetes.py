"""The manifests of deploy/kubernetes say what the cluster has to know, and what they name is there."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import jsonschema
import pytest
import yaml

from relier.metric_table import METRICS
from relier.settings import Settings, unknown_variables
from tests.deploy.commands import resolve
from tests.deploy.shapes import KUBERNETES
from tests.deploy.shipped import ROOT, USERS

FOLDER = ROOT / "deploy" / "kubernetes"
FILES = sorted(FOLDER.glob("*.yaml"))


def objects(kind: str = "") -> dict[str, Any]:
    """Return every object by file and name, or those of a kind by name."""
    found = {}
    for path in FILES:
        for each in yaml.safe_load_all(path.read_text()):
            name = each.get("metadata", {}).get("name", "")
            if not kind or each["kind"] == kind:
                found[name if kind else f"{path.name}: {each['kind']} {name}"] = each
    return found


DEPLOYMENTS = {name: each["spec"] for name, each in objects("Deployment").items()}
PODS = {name: spec["template"] for name, spec in DEPLOYMENTS.items()}


def container(name: str) -> Any:
    (only,) = PODS[name]["spec"]["containers"]
    return only


@pytest.mark.parametrize("name", objects())
def test_an_object_has_the_shape_of_its_kind(name: str) -> None:
    found = objects()[name]
    jsonschema.Draft202012Validator(KUBERNETES[found["kind"]]).validate(found)


def test_kustomize_takes_every_file_but_the_example_of_secrets() -> None:
    (listed,) = [each["resources"] for name, each in objects().items() if name.startswith("kustomization.yaml")]
    assert {*listed, "kustomization.yaml", "secrets.example.yaml"} == {path.name for path in FILES}
    if kubectl := shutil.which("kubectl"):  # Where it is at hand, it says so itself.
        done = subprocess.run([kubectl, "kustomize", str(FOLDER)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert len(list(yaml.safe_load_all(done.stdout))) == len(objects()) - 1 - 2


def test_the_objects_that_others_name_are_there() -> None:
    settings, secrets = objects("ConfigMap"), objects("Secret")
    for name, spec in DEPLOYMENTS.items():
        labels = spec["template"]["metadata"]["labels"]
        assert spec["selector"]["matchLabels"] == labels
        for source in container(name)["envFrom"]:
            assert source.get("configMapRef", {"name": "relier-settings"})["name"] in settings
            assert source.get("secretRef", {"name": "relier-worker"})["name"] in secrets
        (budget,) = [
            b for b in objects("PodDisruptionBudget").values() if b["spec"]["selector"]["matchLabels"] == labels
        ]
        assert budget["spec"]["maxUnavailable"] < spec.get("replicas", 3)
    (service,) = objects("Service").values()
    assert service["spec"]["selector"].items() <= PODS["resurrector"]["metadata"]["labels"].items()
    (policy,) = objects("NetworkPolicy").values()
    chosen = policy["spec"]["podSelector"]["matchLabels"].items()
    assert all(chosen <= pod["metadata"]["labels"].items() for pod in PODS.values())


@pytest.mark.parametrize("name", PODS)
def test_a_pod_is_given_longer_than_its_worker_takes(name: str) -> None:
    timeout = float(objects("ConfigMap")["relier-settings"]["data"]["RELIER_GRACEFUL_SHUTDOWN_TIMEOUT"])
    before = container(name)["lifecycle"]["preStop"]["exec"]["command"]
    assert before[0] == "sleep"
    assert PODS[name]["spec"]["terminationGracePeriodSeconds"] >= timeout + float(before[1]) + 10


@pytest.mark.parametrize("name", PODS)
def test_a_pods_commands_and_probes_are_commands_of_ours(name: str) -> None:
    only = container(name)
    resolve(only["command"])
    probes = [only["startupProbe"], only["readinessProbe"], only["livenessProbe"]]
    for probe in probes:
        assert probe["timeoutSeconds"] < probe["periodSeconds"] or probe is probes[0]
        if "exec" in probe:
            resolve(probe["exec"]["command"])
        else:
            assert probe["httpGet"] == {"path": "/healthz", "port": "metrics"}


def test_settings_are_ones_and_secrets_are_only_referred_to() -> None:
    names = dict(objects("ConfigMap")["relier-settings"]["data"])
    for secret in objects("Secret").values():
        names |= secret["stringData"]
        assert secret["stringData"]["RELIER_REDIS_PASSWORD"] == "change-me"
        user = secret["stringData"]["RELIER_REDIS_URL"].removeprefix("redis://").partition("@")[0]
        assert secret["metadata"]["name"] == f"relier-{user}"
        assert user in USERS
    assert unknown_variables(names) == []
    Settings(**{name.removeprefix("RELIER_").lower(): value for name, value in names.items()})
    for name in PODS:
        assert not [v for v in container(name).get("env", ()) if "PASSWORD" in v["name"] or "KEYS" in v["name"]]


def test_autoscaling_follows_a_metric_that_the_exporter_has() -> None:
    (scaler,) = objects("HorizontalPodAutoscaler").values()
    assert scaler["spec"]["scaleTargetRef"]["name"] in DEPLOYMENTS
    assert "replicas" not in DEPLOYMENTS[scaler["spec"]["scaleTargetRef"]["name"]]  # Else each apply undoes it.
    (metric,) = scaler["spec"]["metrics"]
    asked = metric["external"]["metric"]
    (known,) = [m for m in METRICS if m.name == asked["name"]]
    assert set(asked["selector"]["matchLabels"]) <= set(known.labels)
