"""The Kubernetes files of examples/cluster: fields that exist, one image and disk for all pods, a command of ours.

The whole schema is KubeRay's own and large; docs/cluster.md says how the files were held against it.
"""

from __future__ import annotations

import re
import shlex
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from equipoise.cli import app

EXAMPLES = Path(__file__).parents[2] / "examples" / "cluster"
CONSTRAINTS = EXAMPLES.parents[1] / "constraints.txt"
JOB = {"entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "rayClusterSpec"}
CLUSTER = {"rayVersion", "headGroupSpec", "workerGroupSpecs"}
HEAD = {"rayStartParams", "template"}
WORKERS = HEAD | {"groupName", "replicas", "minReplicas", "maxReplicas"}
POD = {"containers", "volumes", "terminationGracePeriodSeconds"}
CONTAINER = {"name", "image", "env", "resources", "volumeMounts"}


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((EXAMPLES / name).read_text(encoding="utf-8"))


@pytest.fixture(params=["ray_job.yaml", "ray_cluster.yaml"])
def cluster(request: pytest.FixtureRequest) -> dict[str, Any]:
    found = read(request.param)
    assert found["apiVersion"] == "ray.io/v1"
    if found["kind"] == "RayCluster":
        return found["spec"]
    assert found["kind"] == "RayJob"
    assert set(found["spec"]) <= JOB
    return found["spec"]["rayClusterSpec"]


def pods(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    return [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def test_every_field_is_one_that_kuberay_knows(cluster: dict[str, Any]) -> None:
    assert set(cluster) == CLUSTER
    assert set(cluster["headGroupSpec"]) == HEAD
    for group in cluster["workerGroupSpecs"]:
        assert set(group) == WORKERS
        assert group["minReplicas"] == group["replicas"] == group["maxReplicas"]
    for pod in pods(cluster):
        assert set(pod) <= POD
        for container in pod["containers"]:
            assert set(container) == CONTAINER


def test_all_pods_have_the_same_image_and_the_shared_disk(cluster: dict[str, Any]) -> None:
    claimed = read("volume.yaml")
    assert claimed["spec"]["accessModes"] == ["ReadWriteMany"]
    containers = [container for pod in pods(cluster) for container in pod["containers"]]
    assert len({container["image"] for container in containers}) == 1
    for pod in pods(cluster):
        claims = [volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"] if len(volume) == 2 and
                  "persistentVolumeClaim" in volume]  # fmt: skip
        assert claims == [claimed["metadata"]["name"]]
        names = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == names
            assert {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} in container["env"]


def test_the_version_of_ray_is_the_tested_one(cluster: dict[str, Any]) -> None:
    [pinned] = re.findall(r"^ray==(\S+)$", CONSTRAINTS.read_text(encoding="utf-8"), re.MULTILINE)
    assert cluster["rayVersion"] == pinned == version("ray")


def test_the_head_runs_nothing_and_a_run_fits_a_worker(cluster: dict[str, Any]) -> None:
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    words = shlex.split(read("ray_job.yaml")["spec"]["entrypoint"])
    options = dict(pairwise(words))
    [workers] = cluster["workerGroupSpecs"]
    [container] = workers["template"]["spec"]["containers"]
    limits = container["resources"]["limits"]
    assert float(options["--cpus"]) <= float(limits["cpu"])
    assert float(options["--gpus"]) <= float(limits["nvidia.com/gpu"])


def test_the_job_s_command_is_one_of_ours() -> None:
    words = shlex.split(read("ray_job.yaml")["spec"]["entrypoint"])
    assert words[0] == "equipoise"
    command: Any = get_command(app)
    found = command.commands[words[1]].make_context(words[1], words[2:])
    assert found.params["ray"] == "auto"
    mounted = read("ray_job.yaml")["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert any(str(found.params["out"]).startswith(mount["mountPath"]) for mount in mounted["volumeMounts"])
