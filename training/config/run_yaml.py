"""A YAML loader for run files: no text silently becomes a number, and no setting is lost."""

import re

import yaml

_INT = "tag:yaml.org,2002:int"
_FLOAT = "tag:yaml.org,2002:float"
_MISREAD = {"tag:yaml.org,2002:bool", _INT, _FLOAT}
_PATHS = {"tensorboard", "weights"}  # settings that accept any text


class RunLoader(yaml.SafeLoader):
    """A SafeLoader that refuses duplicate keys and leaves truth values to the fields.

    YAML 1.1 reads `yes` and `on` as true (1 for an integer field), `010` as 8, `1:30` as 90 and `1__0.5` as
    10.5. Here they stay text: a boolean field accepts `true` and `yes`, a number refuses them. A file or
    folder named like a truth value needs quotes.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012  (as PyYAML has it)
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in _MISREAD]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_mapping_node(self, anchor: object) -> yaml.MappingNode:
        """Compose a mapping.

        Raises:
            yaml.MarkedYAMLError: a key is there twice, which YAML forbids and PyYAML accepts; or a file or
                folder is named by a truth value without quotes.
        """
        node: yaml.MappingNode = super().compose_mapping_node(anchor)  # type: ignore[arg-type]
        lines: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in lines:
                raise yaml.MarkedYAMLError(
                    problem=f"{key.value!r} is there twice, first in line {lines[key.value]}",
                    problem_mark=key.start_mark,
                )
            lines[key.value] = key.start_mark.line + 1
            plain = isinstance(value, yaml.ScalarNode) and value.style is None
            if key.value in _PATHS and plain and value.value.lower() in self.bool_values:
                raise yaml.MarkedYAMLError(
                    problem=f"{key.value}: {value.value!r} is no file or folder; write null for none, "
                    "or quotes around the name if it is one",
                    problem_mark=value.start_mark,
                )
        return node


RunLoader.add_implicit_resolver(_INT, re.compile(r"[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789"))
RunLoader.add_implicit_resolver(
    _FLOAT,
    re.compile(r"(?i:[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:e[-+]?[0-9]+)?|[-+]?\.inf|\.nan)$"),
    list("-+.0123456789"),
)
