"""Names and types of a JSON value, to compare an example of a page with a real answer."""


def shape(value: object) -> object:
    """Return the names and types of a JSON value; a list is described by its first element."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value[:1]]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number"
    return type(value).__name__
