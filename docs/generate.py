"""Write the pages of docs/reference that follow from the code: `make reference`.

tests/docs/test_reference.py fails when a committed page differs from what this module writes.
"""

import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Final, get_args, get_type_hints

import typer
from pydantic import BaseModel
from typer.models import ArgumentInfo, OptionInfo

REFERENCE: Final = Path(__file__).parent / "reference"
_MIB: Final = 1024 * 1024
_BOUNDS: Final = {"minimum": "≥ ", "exclusiveMinimum": "> ", "maximum": "≤ ", "exclusiveMaximum": "< "}
_PARAMETERS: Final = (OptionInfo, ArgumentInfo)
# The settings by what they are for. A setting that no group names fails `settings`.
_GROUPS: Final = {
    "Server": "models host port session_hours requests_per_minute drain_seconds log_format",
    "Network and TLS": "tls_certificate tls_key trusted_proxies allow_unauthenticated_network",
    "Inference": "device engine precision engine_cache threads max_batch preload model_bytes decode_threads",
    "Limits of requests": "max_bytes max_pixels max_items max_bundle_bytes queue_images queue_bytes "
    "deadline_ms upload_idle_seconds",
    "Jobs": "job_threads",
    "History": "history database store store_cache_bytes journal_bytes retention_pass_days "
    "retention_review_days retention_reject_days retention_bytes audit_share drift_window",
    "Products": "product_images product_bytes import_folders",
    "Events, MQTT and webhooks": "max_readers events_kept mqtt_url mqtt_user mqtt_password mqtt_ca "
    "mqtt_topic mqtt_status_topic webhooks",
}


def settings() -> str:
    """Render the page of the FLOWGAUGE_* variables."""
    from app.settings import Settings

    schema = Settings.model_json_schema()
    fields = schema["properties"]
    grouped = sorted(" ".join(_GROUPS.values()).split())
    if grouped != sorted(fields):
        raise ValueError(f"_GROUPS must name each setting once; it differs by {set(grouped) ^ set(fields)}")
    tables = [
        f"## {group}\n\n"
        + _table(
            ("Variable", "Value", "Default", "Meaning"),
            [
                (
                    f"`FLOWGAUGE_{name.upper()}`",
                    _values(fields[name]),
                    _default(fields[name].get("default"), in_bytes=name.endswith("bytes")),
                    fields[name]["description"],
                )
                for name in names.split()
            ],
        )
        for group, names in _GROUPS.items()
    ]
    others = _table(("Variable", "Meaning"), _OTHER_VARIABLES)
    return _page(
        "Settings", _SETTINGS_INTRODUCTION, *tables, _SETTINGS_RULES, "## Variables of other commands", others
    )


def commands() -> str:
    """Render the page of the command line."""
    from flowgauge import COMMANDS

    sections = []
    for name, mount in COMMANDS.items():
        module, _, attribute = mount.target.partition(":")
        target = getattr(importlib.import_module(module), attribute)
        if not isinstance(target, typer.Typer):
            sections.append(_command("##", name, target))
            continue
        group = target.registered_callback
        sections.append(f"## {name}\n\n{_text(group.callback if group else None)}")
        for command in target.registered_commands:
            if command.callback is not None:
                part = command.name or command.callback.__name__
                sections.append(_command("###", f"{name} {part}", command.callback))
    return _page("Commands", _COMMANDS_INTRODUCTION, *sections)


def run_config() -> str:
    """Render the page of the YAML file that describes a training run."""
    from training.config.run_config import RunConfig

    sections: dict[str, list[tuple[str, ...]]] = {}
    for path, *row in _fields(RunConfig, RunConfig()):
        section = path.partition(".")[0] if "." in path else "The run"
        sections.setdefault(section, []).append((f"`{path}`", *row))
    head = ("Setting", "Value", "Default", "Meaning")
    tables = [f"## {name}\n\n{_table(head, rows)}" for name, rows in sections.items()]
    merged = _table(("Setting", "Meaning"), _RUN_MERGED)
    return _page("Run configuration", _RUN_INTRODUCTION, *tables, "## Presets and categories", merged)


def rest_api() -> str:
    """Render the page of the REST interface."""
    from app.main import create_app
    from app.schemas.access import Role
    from app.settings import Settings

    document = create_app(Settings()).openapi()
    everybody = ", ".join(Role)
    names = {everybody: "all", everybody.removeprefix("line, "): "all but line", "": "no key"}
    # Routes by their tag, then by what they are for: a route for the active version also takes a version.
    routes: dict[str, dict[tuple[str, str], list[str]]] = {}
    for path, operations in sorted(document["paths"].items()):
        for method, operation in operations.items():
            text, _, roles = operation["description"].partition("\n\nRoles: ")
            purpose = _first_sentence(text), names.get(roles.strip("."), roles.strip("."))
            of_tag = routes.setdefault(operation["tags"][0], {})
            of_tag.setdefault(purpose, []).append(f"`{method.upper()} {path}`")
    head = ("Route", "Purpose", "Roles")
    tables = [
        f"### {tag.capitalize()}\n\n"
        + _table(head, [("<br>".join(paths), *purpose) for purpose, paths in of_tag.items()])
        for tag, of_tag in routes.items()
    ]
    predict = document["paths"]["/v1/models/{category}/predict"]["post"]
    parameters = [
        (f"`{one['name']}`", one["in"], _values(schema), _default(schema.get("default")), one["description"])
        for one in predict["parameters"]
        for schema in [one["schema"]]
    ]
    headers = predict["responses"]["200"]["headers"]
    return _page(
        "REST API",
        _REST_INTRODUCTION,
        "## Routes",
        *tables,
        "## Parameters of predict",
        _PREDICT_INTRODUCTION,
        _table(("Parameter", "In", "Value", "Default", "Meaning"), parameters),
        "Headers of an answer that is an image or a map:",
        _table(("Header", "Meaning"), [(f"`{name}`", one["description"]) for name, one in headers.items()]),
        "## Errors",
        _ERRORS,
    )


PAGES: Final[dict[str, Callable[[], str]]] = {
    "settings.md": settings,
    "commands.md": commands,
    "run-config.md": run_config,
    "rest-api.md": rest_api,
}


def main() -> None:
    """Write every page."""
    REFERENCE.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page())


def _page(title: str, *parts: str) -> str:
    note = "<!-- Written by docs/generate.py: change the code, then run `make reference`. -->"
    text = "\n\n".join([f"# {title}", note, *map(str.strip, parts)]) + "\n"
    return re.sub(r"\bdocs/([\w-]+/[\w-]+\.md)", r"[\1](../\1)", text)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("|" + "|".join(cell.replace("|", "\\|") for cell in line) + "|" for line in lines)


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=\.)\s", " ".join(text.split()), maxsplit=1)[0]


def _values(schema: dict[str, Any]) -> str:
    """Name the values that a JSON schema allows."""
    kinds = [kind for kind in schema.get("anyOf", [schema]) if kind.get("type") != "null"]
    return " or ".join(map(_kind, kinds))


def _kind(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("type") == "array":
        return "list of " + _kind(schema.get("prefixItems", [schema.get("items", {})])[0])
    if schema.get("type") == "boolean":
        return "`true`, `false`"
    limits = {key: _number(schema[key]) for key in _BOUNDS if abs(schema.get(key, 2**31)) < 2**31}
    bounds = [_BOUNDS[key] + limit for key, limit in limits.items()]
    if {"minimum", "maximum"} == set(limits):
        bounds = [f"{limits['minimum']} to {limits['maximum']}"]
    kind = "path" if schema.get("format") == "path" else str(schema.get("type")).replace("string", "text")
    return " ".join([kind, *([", ".join(bounds)] if bounds else [])])


def _number(value: float) -> str:
    return f"{value:g}" if abs(value) < 1e6 else f"{value:,}".replace(",", "")


def _default(value: Any, *, in_bytes: bool = False) -> str:
    if value in (None, "", ()):
        return ""
    if in_bytes:
        return f"`{value}` ({value // _MIB} MiB)"
    return f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    """Write a value as in YAML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_plain, value))}]"
    return str(value.value if isinstance(value, Enum) else value)


def _fields(model: type[BaseModel], values: BaseModel, prefix: str = "") -> Iterator[tuple[str, ...]]:
    """Yield path, allowed values, default and meaning of each field of a model and of its sections.

    Args:
        model: to describe.
        values: an instance with the defaults.
        prefix: of the paths.
    """
    schema = model.model_json_schema()
    for name, field in model.model_fields.items():
        path, default = f"{prefix}{name}", getattr(values, name)
        section = next((kind for kind in _kinds(field.annotation) if issubclass(kind, BaseModel)), None)
        if section is None or default is None:
            allowed = _values(schema["properties"][name]) if section is None else "section"
            text = field.description or ""
            yield path, allowed, "`null`" if default is None else _default(default), _sentence(text)
        if section is not None:
            yield from _fields(section, default or section(), f"{path}.")


def _kinds(annotation: Any) -> Iterator[type]:
    """Yield the classes of an annotation, which may be a union."""
    yield from (kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type))


def _sentence(text: str) -> str:
    """Begin with a capital letter, unless the text begins with a name, and end with a full stop."""
    return (text if text.startswith("timm") else text[:1].upper() + text[1:]) + "."


def _command(level: str, name: str, function: Callable[..., Any]) -> str:
    rows = list(_options(function))
    table = [_table(("Option", "Default", "Meaning"), rows)] if rows else []
    return "\n\n".join([f"{level} {name}", _text(function), *table])


def _text(function: Callable[..., Any] | None) -> str:
    """Return a command's help without its list of variables, which settings.md has."""
    text = (inspect.getdoc(function) or "").partition("\n\nSet by environment variables only:")[0]
    return re.sub(r"(?m)^(Example: |- )(flowgauge .+)$", r"\1`\2`", text)


def _options(function: Callable[..., Any]) -> Iterator[tuple[str, str, str]]:
    """Yield name, default and meaning of a command's arguments and options."""
    from app.commands.options import SERVER_URL

    hints = get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters
    # The introduction of the page says these once.
    shared = ("url", "key", "ca") if "url" in parameters and parameters["url"].default == SERVER_URL else ()
    for parameter in parameters.values():
        if parameter.name in shared:
            continue
        info = next(one for one in hints[parameter.name].__metadata__ if isinstance(one, _PARAMETERS))
        default = _default(parameter.default)
        if parameter.default is inspect.Parameter.empty:
            default = "required"
        elif isinstance(info.show_default, str):
            default = info.show_default
        elif parameter.default is False:
            default = ""
        yield _name(parameter.name, info), default, _help(info)


def _name(name: str, info: OptionInfo | ArgumentInfo) -> str:
    if isinstance(info, ArgumentInfo):
        return f"`{(info.metavar or name.upper()).strip('[]')}`"
    # In annotations typer has the first name where the default would be.
    given = [one for one in (info.default, *(info.param_decls or ())) if isinstance(one, str)]
    return ", ".join(f"`{one}`" for one in given or ["--" + name.replace("_", "-")])


def _help(info: OptionInfo | ArgumentInfo) -> str:
    variable = f" (`{info.envvar}`)" if isinstance(info.envvar, str) else ""
    return f"{(info.help or '').rstrip('.')}{variable}."


_SETTINGS_INTRODUCTION: Final = """
`flowgauge serve` reads these environment variables when it starts. Some are options of the command too;
an option overrides its variable. An empty variable counts as not set. The log names unknown variables
that begin with `FLOWGAUGE_`, and lists the settings in force.
"""
_SETTINGS_RULES: Final = """
## Rules between settings

- `FLOWGAUGE_QUEUE_BYTES` must hold a largest image: `FLOWGAUGE_MAX_BYTES` + 3 * `FLOWGAUGE_MAX_PIXELS`.
- `FLOWGAUGE_QUEUE_IMAGES` must not be less than `FLOWGAUGE_MAX_ITEMS`.
- One category may use at most two thirds of both queues, so that it cannot shut out the others.
- In `FLOWGAUGE_DATABASE`, write `@ : / ? %` in user or password as `%40 %3A %2F %3F %25`.
"""
_OTHER_VARIABLES: Final = [
    (
        "`FLOWGAUGE_KEY`",
        "API key that `predict`, `watch`, `doctor` and the examples send. Unlike `--key`, it does not show "
        "in the list of processes.",
    ),
    (
        "`FLOWGAUGE_URL`",
        "Address of the server, for `products`, `jobs` and the examples.",
    ),
    ("`FLOWGAUGE_RUNS`", "Folder of checkpoints and cached features of `train`."),
    ("`FLOWGAUGE_RAY`", "Ray cluster of `train`, also of a server's trainings: `auto` or HOST:PORT."),
    ("`FLOWGAUGE_DEBUG`", "`1` shows the traceback of an error."),
    (
        "`FLOWGAUGE_MALLOC`",
        "`default` returns freed memory to the system at once, which doubles the time of a forward pass on a "
        "CPU.",
    ),
    ("`FLOWGAUGE_BIND`, `FLOWGAUGE_DATA`", "Address and data folder in `docker-compose.yml`."),
    ("`HF_ENDPOINT`, `HF_TOKEN`", "Mirror of the timm hub and its token, for `backbones pull` and `train`."),
    ("`TMPDIR`", "Folder of temporary files."),
]
_COMMANDS_INTRODUCTION: Final = """
`flowgauge COMMAND --help` prints the same texts. Exit codes: 0 done, 1 failed, 2 wrong usage, 130
interrupted. Upper-case names are arguments. Names in brackets are the environment variables of options.

`products` and `jobs` also take `--url` (`FLOWGAUGE_URL`, by default `http://127.0.0.1:8000`), `--key`
(`FLOWGAUGE_KEY`) and `--ca`, as `predict` does.
"""
_RUN_INTRODUCTION: Final = """
`flowgauge train --config run.yaml` reads these settings. Every setting has a default, so the file may
be short or empty. Unknown and repeated names are refused. `report/config.yaml` in a bundle holds all
settings of its run. `--seed`, `--device`, `--epochs`, `--threads`, `--target-fpr` and `--tensorboard`
override the file.

    fit: {epochs: 20}
    calibration: {target_fpr: 0.005}
"""
_RUN_MERGED: Final = [
    ("`preset`", "Preset whose settings lie under those of the file, see `flowgauge backbones list`."),
    ("`backbone.blocks`", "Another name for `backbone.out_indices`, for transformers."),
    ("`categories`", "Settings of single categories by name. They override the rest of the file."),
]
_REST_INTRODUCTION: Final = """
A running server has the full schema at `/openapi.json` and a page to try it at `/docs`; both work
offline. Send the API key as `X-API-Key` or as a bearer token. While a server has no key, requests from
its own machine need none. Roles are `line`, `viewer`, `inspector`, `operator` and `admin`. A key may be
limited to categories. Every answer has an `X-Request-ID`.
"""
_PREDICT_INTRODUCTION: Final = """
The body is an image, or a form with the image as `file`. The form may have the fields `part_id`,
`product_id`, `recipe_id` and `station`.
"""
_ERRORS: Final = """
Errors are RFC 9457 problem details; [troubleshoot](../how-to/troubleshoot.md#refusals) lists all types.
Routes under `/v2` answer `{"error": "..."}`, as the Open Inference Protocol demands.
"""


if __name__ == "__main__":
    main()
