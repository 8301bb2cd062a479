"""The files of deploy/ for several servers: valid by their schemas, with settings that the server takes."""

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from compose_spec.models import ComposeSpecification

from app.settings import Settings, unknown_variables

DEPLOY = Path(__file__).parents[1] / "deploy"
COMPOSE = DEPLOY / "cluster" / "compose.yml"
KUBERNETES = DEPLOY / "kubernetes"
MANIFESTS = ["statefulset.yaml", "service.yaml", "disruption.yaml"]
# Keys of the secret that an administrator makes.
SECRET = {
    "FLOWGAUGE_DATABASE": "postgresql://flowgauge:x@database/flowgauge",
    "AWS_ACCESS_KEY_ID": "x",
    "AWS_SECRET_ACCESS_KEY": "x",
}


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("FLOWGAUGE_"):
            monkeypatch.delenv(name)


def require_settings(environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Read settings as the server does; each variable must be one."""
    assert unknown_variables(environment) == []
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Settings()


def read_manifests() -> list[dict[str, Any]]:
    return [one for name in MANIFESTS for one in yaml.safe_load_all((KUBERNETES / name).read_text())]


def read_compose() -> dict[str, Any]:
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", COMPOSE.read_text())
    parsed: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{\w+:\?[^}]*\}", "secret", text))
    return parsed


def test_compose_file_is_valid() -> None:
    compose = read_compose()
    del compose["x-server"]  # for YAML alone
    ComposeSpecification.model_validate(compose, extra="forbid")
    mounts = [mount for service in compose["services"].values() for mount in service["volumes"]]
    named = [mount.partition(":")[0] for mount in mounts if not mount.startswith(".")]
    assert sorted(named) == sorted(compose["volumes"])


def test_servers_of_compose_share_all_but_their_volumes(monkeypatch: pytest.MonkeyPatch) -> None:
    services = read_compose()["services"]
    one, two = services["server-1"], services["server-2"]
    assert not set(one.pop("volumes")) & set(two.pop("volumes"))
    assert one == two
    settings = require_settings(one["environment"], monkeypatch)
    assert settings.store == f"s3://{services['store']['environment']['S3_BUCKET']}/plant"


def test_nginx_keeps_the_rules_of_a_single_server() -> None:
    single, cluster = (
        {line.strip() for line in path.read_text().splitlines() if not line.strip().startswith("#")}
        for path in (DEPLOY / "nginx.conf", DEPLOY / "cluster" / "nginx.conf")
    )
    assert single - cluster == {"server 127.0.0.1:8000;"}


@pytest.mark.parametrize("manifest", read_manifests(), ids=lambda manifest: manifest["kind"])
def test_manifest_is_valid(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_base_includes_all_manifests() -> None:
    base = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    assert base["resources"] == MANIFESTS
    assert {path.name for path in KUBERNETES.iterdir()} == {*MANIFESTS, "kustomization.yaml", "settings.env"}


def test_selectors_match_the_pods() -> None:
    server, *others = read_manifests()
    labels = server["spec"]["template"]["metadata"]["labels"]
    selectors = [one["spec"]["selector"] for one in (server, *others)]
    assert all(selector.get("matchLabels", selector) == labels for selector in selectors)
    assert server["spec"]["serviceName"] in {one["metadata"]["name"] for one in others}


def test_pod_has_settings_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    [container] = read_manifests()[0]["spec"]["template"]["spec"]["containers"]
    lines = shlex.split((KUBERNETES / "settings.env").read_text(), comments=True)
    shared = dict(line.split("=", 1) for line in lines)
    own = {one["name"]: one["value"] for one in container["env"]}
    settings = require_settings({**SECRET, **shared, **own}, monkeypatch)
    assert settings.store is not None
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {f"/{settings.history.parts[1]}", f"/{settings.models.parts[1]}"} <= mounts


def test_pod_has_time_to_finish_its_requests() -> None:
    pod = read_manifests()[0]["spec"]["template"]["spec"]
    seconds: int = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    accepted, journal = 35, 10  # app/startup.py with the default deadline; app/history/history.py
    assert pod["terminationGracePeriodSeconds"] > seconds + accepted + journal


def test_pod_has_no_privileges() -> None:
    pod = read_manifests()[0]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    limits = pod["containers"][0]["securityContext"]
    assert limits["readOnlyRootFilesystem"]
    assert limits["capabilities"] == {"drop": ["ALL"]}
