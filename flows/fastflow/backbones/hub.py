"""Weights from the timm hub, their licences, and the reasons of failed downloads."""

import timm
from huggingface_hub import get_session, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError
from torch import Tensor

# Licences that require more than a notice, by timm's name.
TERMS = {
    "dinov3-license": "this is Meta's own licence, with conditions on use and redistribution; read it before "
    "you pass on a model made with them: https://ai.meta.com/resources/models-and-libraries/dinov3-license/",
}
_PERMISSIVE = ("apache-2.0", "mit", "bsd-3-clause")


class HubError(ValueError):
    """The hub returned no weights; the message says why."""


def find_licence(name: str) -> str:
    """Return the licence of a model's weights in timm's records, e.g. "apache-2.0".

    "not recorded" if timm has none.

    Args:
        name: timm's name, with or without a tag.
    """
    config = timm.get_pretrained_cfg(name, allow_unregistered=False)
    return str(getattr(config, "license", None) or "not recorded")


def describe_licence(name: str) -> str:
    """Describe the licence of a model's weights in a sentence."""
    licence = find_licence(name)
    if licence in _PERMISSIVE:
        return f"weights of {name}: licence {licence}"
    terms = TERMS.get(licence, "read it before you use them beyond a trial; it may exclude commercial use")
    return f"weights of {name}: licence {licence}; {terms}"


def download_weights(name: str) -> dict[str, Tensor]:
    """Download weights from the timm hub, or read them from its cache: tensors under timm's names.

    Raises:
        HubError: the hub cannot be reached, has no such weights, or requires an account.
    """
    config = timm.get_pretrained_cfg(name)
    repository, revision, file = "", None, "model.safetensors"
    if config is not None and config.hf_hub_id:
        repository, _, revision = config.hf_hub_id.partition("@")
        file = config.hf_hub_filename or file
    try:
        kept = repository and try_to_load_from_cache(repository, file, revision=revision or None)
        if repository and not isinstance(kept, str):
            # Without a network the hub's client would retry for most of a minute, with a warning each time.
            # One request shows that the hub can be reached; any answer is enough.
            get_session().head(hf_hub_url(repository, file), timeout=10.0)
        model = timm.create_model(name, pretrained=True)
    # Failures of the hub (no network, no such file, a proxy's answer) have many classes.
    except Exception as error:
        raise HubError(_describe_failure(name, repository, error)) from error
    return {key: value.detach() for key, value in model.state_dict().items()}


def _describe_failure(name: str, repository: str, error: Exception) -> str:
    # The client wraps some refusals into "not found in the cache".
    behind = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else error
    response = behind.response if isinstance(behind, HfHubHTTPError) else None
    status = None if response is None else response.status_code
    if isinstance(behind, GatedRepoError) or status == 403:
        return (
            f"the timm hub requires an accepted licence for the weights of {name!r} (HTTP {status}): accept "
            f"it at https://huggingface.co/{repository} with your account, create a token with read access, "
            "set it as HF_TOKEN in the environment, and try again"
        )
    if status == 401:
        return (
            f"the timm hub has no repository {repository} for {name!r}, or hides it without a token "
            "(HTTP 401): if you have access, set your token as HF_TOKEN in the environment"
        )
    return (
        f"the timm hub returned no weights for {name!r}: {type(error).__name__}. "
        "Is this machine online, and does timm list that model as pretrained?"
    )
