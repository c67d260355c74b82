"""The manifest of the served model. Whether its command serves: test_serving.py."""

import re
import shutil
from pathlib import Path

from tests.deploy.test_manifests import DEPLOY, NAMESPACE, Object, assert_restricted, named, render
from tests.paths import ROOT


def service() -> Object:
    return named(render(DEPLOY / "serving"), "InferenceService", "dual-hrnet")


def test_the_pod_is_restricted_probed_and_bounded() -> None:
    predictor = service()["spec"]["predictor"]
    assert_restricted(predictor)
    assert predictor["automountServiceAccountToken"] is False
    assert predictor["enableServiceLinks"] is False  # they would set MLFLOW_PORT
    (container,) = predictor["containers"]
    assert container["name"] == "kserve-container"  # by which KServe finds it
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    for kind in ("requests", "limits"):
        assert set(container["resources"][kind]) == {"cpu", "memory", "ephemeral-storage"}
    (port,) = container["ports"]
    probes = [container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")]
    assert probes == [{"path": "/ping", "port": port["containerPort"]}] * 3
    assert f"--port={port['containerPort']}" in container["args"]


def test_it_reaches_the_mlflow_of_the_base_and_is_reached_through_its_policy() -> None:
    rendered = render(DEPLOY / "serving")
    assert {one["metadata"]["namespace"] for one in rendered} == {NAMESPACE}
    base = render(DEPLOY / "base")
    (port,) = named(base, "Service", "mlflow")["spec"]["ports"]
    (container,) = service()["spec"]["predictor"]["containers"]
    assert container["env"] == [{"name": "MLFLOW_TRACKING_URI", "value": f"http://mlflow:{port['port']}"}]
    policy = named(rendered, "NetworkPolicy", "serving")["spec"]
    assert policy["podSelector"]["matchLabels"] == {"serving.kserve.io/inferenceservice": service()["metadata"]["name"]}
    assert [one["port"] for rule in policy["ingress"] for one in rule["ports"]] == [8080]


def test_the_overlay_of_the_docs_sets_the_image(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    (content,) = re.findall(r"^cat > deploy/overlays/serving/kustomization.yaml <<END\n(.*?)^END$", text, re.S | re.M)
    folder = shutil.copytree(DEPLOY, tmp_path / "deploy") / "overlays" / "serving"
    folder.mkdir()
    content = content.replace("$REGISTRY", "r.example.org").replace("$REVISION", "0a1b2c3d4e5f")
    (folder / "kustomization.yaml").write_text(content, encoding="utf-8")
    (container,) = named(render(folder), "InferenceService", "dual-hrnet")["spec"]["predictor"]["containers"]
    assert container["image"] == "r.example.org/dual-hrnet:0a1b2c3d4e5f"
    assert service()["spec"]["predictor"]["containers"][0]["image"] == "registry.example.org/dual-hrnet:0.1.0"
