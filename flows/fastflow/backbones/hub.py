"""The timm hub: weights fetched from it, the terms they come under, and what is wrong when none come."""

import timm
from huggingface_hub import get_session, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError
from torch import Tensor

# Terms that ask for more than a notice, by what timm calls them.
TERMS = {
    "dinov3-license": "that is Meta's own, with conditions on use and on redistribution; read it before a "
    "model made with them leaves the house: https://ai.meta.com/resources/models-and-libraries/dinov3-license/",
}
_PERMISSIVE = ("apache-2.0", "mit", "bsd-3-clause")


class HubError(ValueError):
    """The hub gave no weights; the message says why."""


def find_licence(name: str) -> str:
    """The licence of a model's weights as timm records it, e.g. "apache-2.0"; "not recorded" if it does not.

    Args:
        name: timm's name, with or without a tag.
    """
    config = timm.get_pretrained_cfg(name, allow_unregistered=False)
    return str(getattr(config, "license", None) or "not recorded")


def describe_licence(name: str) -> str:
    """What to know of a licence before its weights are used, in a sentence."""
    found = find_licence(name)
    if found in _PERMISSIVE:
        return f"weights of {name}: licence {found}"
    terms = TERMS.get(found, "read it before they are used beyond a trial; it may rule out commercial use")
    return f"weights of {name}: licence {found}; {terms}"


def download_weights(name: str) -> dict[str, Tensor]:
    """What timm fetches from its hub, or has kept from an earlier time: the tensors under timm's names.

    Raises:
        HubError: there is no hub, it has no such weights, or it gives them to nobody without an account.
    """
    config = timm.get_pretrained_cfg(name)
    repository, revision, file = "", None, "model.safetensors"
    if config is not None and config.hf_hub_id:
        repository, _, revision = config.hf_hub_id.partition("@")
        file = config.hf_hub_filename or file
    try:
        kept = repository and try_to_load_from_cache(repository, file, revision=revision or None)
        if repository and not isinstance(kept, str):
            # Asked in vain, the hub's client would try again for most of a minute, a line of warning each
            # time. One request tells whether there is a hub; any answer will do.
            get_session().head(hf_hub_url(repository, file), timeout=10.0)
        model = timm.create_model(name, pretrained=True)
    # The hub fails in many ways (no network, no such file, a proxy's answer), each with its own class.
    except Exception as error:
        raise HubError(_describe_failure(name, repository, error)) from error
    return {key: value.detach() for key, value in model.state_dict().items()}


def _describe_failure(name: str, repository: str, error: Exception) -> str:
    # The client wraps some refusals into "not found on this machine either".
    behind = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else error
    response = behind.response if isinstance(behind, HfHubHTTPError) else None
    status = None if response is None else response.status_code
    if isinstance(behind, GatedRepoError) or status == 403:
        return (
            f"the timm hub gives the weights of {name!r} only to those who have accepted their licence "
            f"(HTTP {status}): accept it at https://huggingface.co/{repository} with an account of your own, "
            "make a token that may read, put it into the environment as HF_TOKEN, and try again"
        )
    if status == 401:
        return (
            f"the timm hub has no repository {repository} for {name!r}, or hides it from who shows no token "
            "(HTTP 401): if you have access to it, put your token into the environment as HF_TOKEN"
        )
    return (
        f"the timm hub gave no weights for {name!r}: {type(error).__name__}. "
        "Is this machine online, and does timm list that model as pretrained?"
    )
