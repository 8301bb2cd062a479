"""The files of deploy/ray: valid, alike, and with settings that the replicas take."""

import importlib
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app.cluster import proxy
from app.cluster.deployment import PROXY_VARIABLES
from app.settings import Settings, unknown_variables

RAY = Path(__file__).parents[1] / "deploy" / "ray"
SECRET = {"FLOWGAUGE_DATABASE": "postgresql://flowgauge:x@database/flowgauge"}


def read_manifests() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((RAY / "ray-service.yaml").read_text()))


def read_pods() -> list[dict[str, Any]]:
    cluster = read_manifests()[0]["spec"]["rayClusterConfig"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def validate(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_service_has_the_config_of_serve() -> None:
    service = read_manifests()[0]
    config = yaml.safe_load((RAY / "serve.yaml").read_text())
    assert yaml.safe_load(service["spec"]["serveConfigV2"]) == config
    assert service["spec"]["rayClusterConfig"]["authOptions"] == {"mode": "token"}


def test_pods_and_policy_are_valid() -> None:
    for pod in read_pods():
        validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray"}, "spec": pod})
        assert pod["securityContext"]["runAsNonRoot"]
    policy = read_manifests()[1]
    validate(policy)
    open_to_all, *others = policy["spec"]["ingress"]
    assert open_to_all == {"ports": [{"port": 8000}]}
    for source in (one for rule in others for one in rule["from"]):
        assert source.get("namespaceSelector") != {}, "pods of any namespace"


def test_pods_have_settings_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("FLOWGAUGE_"):
            monkeypatch.delenv(name)
    for pod in read_pods():
        [container] = pod["containers"]
        variables = {one["name"]: one["value"] for one in container["env"]}
        assert variables.items() >= PROXY_VARIABLES.items()
        module, _, function = variables["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"].rpartition(".")
        assert getattr(importlib.import_module(module), function) is proxy.middlewares
        settings = {**SECRET, **variables}
        assert unknown_variables(settings) == []
        for name, value in settings.items():
            if name.startswith("FLOWGAUGE_"):
                monkeypatch.setenv(name, value)
        history = Settings().history
        assert {str(history)} == {mount["mountPath"] for mount in container["volumeMounts"]}


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="the extra ray is not installed")
def test_config_is_the_output_of_serve_build(tmp_path: Path) -> None:
    built = tmp_path / "serve.yaml"
    serve = Path(sys.executable).with_name("serve")
    command = [str(serve), "build", "app.cluster.application:service", "-o", str(built)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLOWGAUGE_")}
    subprocess.run(command, check=True, cwd=RAY.parents[1], env=environment, capture_output=True)
    ours, theirs = (yaml.safe_load(path.read_text()) for path in (RAY / "serve.yaml", built))
    [application] = theirs["applications"]
    application["name"] = "flowgauge"
    assert application.pop("runtime_env") == {}
    assert ours == {name: theirs[name] for name in ours}
