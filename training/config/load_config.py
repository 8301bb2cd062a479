"""Loading a run's configuration from YAML, presets and command-line options."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from flows.fastflow.backbones.presets import PresetError
from training.config.category_settings import settings_of_category
from training.config.presets import apply_preset
from training.config.run_config import ConfigError, RunConfig
from training.config.run_yaml import RunLoader

# Options by the section that they override.
_OVERRIDES = {
    "seed": None, "device": None, "tensorboard": None,
    "epochs": "fit", "threads": "fit", "target_fpr": "calibration",
}  # fmt: skip
_Location = tuple[int | str, ...]


def load_config(
    path: Path | None,
    category: str | None = None,
    *,
    preset: str | None = None,
    **overrides: str | float | None,
) -> RunConfig:
    """Read a run's YAML, or take the defaults, and apply the command line's options.

    The file may hold `categories`, a mapping of names to settings. The settings of `category` override the
    rest of the file; see `settings_of_category`.

    Args:
        path: the YAML file, or None for the defaults.
        category: name of the category; None ignores `categories`.
        preset: base under the file's own fields, instead of the file's `preset`; see `apply_preset`.
        overrides: seed, device, tensorboard, epochs, threads, target_fpr; None keeps the file's value.

    Raises:
        ConfigError: the file is missing, is not YAML, has a key twice, or has a field that is unknown or
            out of range.
    """
    data = _read_yaml(path)
    own = _category_sections(data, path).get(category or "") or {}
    general = {name: value for name, value in data.items() if name != "categories"}
    try:
        data = apply_preset(settings_of_category(general, own, preset), preset)
    except PresetError as error:
        raise ConfigError(f"{path or 'the run'}: {error}") from error
    options = _apply_overrides(data, overrides)
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_describe_errors(error.errors(), path, options)) from error


def categories_with_settings(path: Path | None) -> list[str]:
    """List the categories that have their own settings in a run's YAML.

    Raises:
        ConfigError: as `load_config`.
    """
    return list(_category_sections(_read_yaml(path), path))


def dump_config(config: RunConfig) -> str:
    """Write the complete run as YAML that `load_config` reads."""
    text: str = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    return text


def _apply_overrides(data: dict[str, Any], overrides: dict[str, str | float | None]) -> dict[_Location, str]:
    """Put the options into the settings; return the option that set each field."""
    options: dict[_Location, str] = {}
    for name, section in _OVERRIDES.items():
        value = overrides.pop(name, None)
        if value is None:
            continue
        options[(name,) if section is None else (section, name)] = f"--{name.replace('_', '-')}"
        if section is None:
            data[name] = value
        else:
            inner = data.get(section)
            # A section that is no mapping stays: validation reports it.
            if inner is None or isinstance(inner, dict):
                data[section] = {**(inner or {}), name: value}
    if overrides:
        raise ConfigError(f"there are no such settings: {sorted(overrides)}")
    return options


def _describe_errors(
    errors: Sequence[ErrorDetails], path: Path | None, options: Mapping[_Location, str]
) -> str:
    lines = []
    for error in errors:
        field = options.get(error["loc"]) or ".".join(map(str, error["loc"])) or "the run"
        lines.append(f"  {field}: {_describe_error(error)}")
    where = str(path) if path else "the run's settings"
    # An error of a whole section may come from any option within it.
    locations = [error["loc"] for error in errors]
    at_fault = [option for loc, option in options.items() if any(loc[: len(at)] == at for at in locations)]
    over = f" with {', '.join(at_fault)}" if at_fault else ""
    return "\n".join([f"{where}{over} cannot be used:", *lines])


def _describe_error(error: ErrorDetails) -> str:
    if error["type"] != "extra_forbidden":
        return str(error["msg"]).removeprefix("Value error, ")
    *sections, name = error["loc"]
    model: Any = RunConfig
    for section in sections:
        field = getattr(model, "model_fields", {}).get(section)
        model = None if field is None else field.annotation
    near = get_close_matches(str(name), getattr(model, "model_fields", {}), 1)
    return "there is no such setting" + (f"; did you mean {near[0]}?" if near else "")


def _read_yaml(path: Path | None) -> dict[str, object]:
    if path is None:
        return {}
    try:
        loaded = yaml.load(path.read_text(encoding="utf-8"), RunLoader)  # noqa: S506  (a SafeLoader)
    except OSError as error:
        raise ConfigError(f"cannot read the run's file {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if loaded is not None and not isinstance(loaded, dict):
        raise ConfigError(f"{path} must hold a mapping of settings; got {type(loaded).__name__}")
    return loaded or {}


def _category_sections(data: dict[str, object], path: Path | None) -> dict[str, dict[str, object] | None]:
    sections = data.get("categories") or {}
    if not isinstance(sections, dict) or not all(isinstance(v, dict | None) for v in sections.values()):
        raise ConfigError(f"{path}: categories must map each name to a mapping of settings")
    if others := [name for name in sections if not isinstance(name, str)]:
        raise ConfigError(f"{path}: to YAML the category {others[0]} is no text; write it in quotes")
    return sections
