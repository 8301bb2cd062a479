"""Weights that nobody trained, of a timm architecture small enough to write and read in an instant."""

import timm
import torch

from flows.fastflow.weights import State, Weights, digest

NAME = "test_resnet"


def state(seed: int = 0) -> State:
    """The tensors."""
    torch.manual_seed(seed)
    return dict(timm.create_model(NAME, pretrained=False).state_dict())


def weights(seed: int = 0) -> Weights:
    """The same as `find_weights` would give them."""
    tensors = state(seed)
    return Weights(NAME, "a test", digest(tensors), tensors)
