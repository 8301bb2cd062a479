"""Weights that nobody trained, of a timm architecture small enough to write and read in an instant."""

from flows.fastflow.backbones.weights import State, Weights, weights_digest
from tests.support.random_weights import random_weights

NAME = "test_resnet"
# Its classifier, which no map needs, has a hundred million weights, and takes seconds.
_SMALLER = {"vgg11_bn": {"mlp_ratio": 0.01}}


def state(seed: int = 0, name: str = NAME) -> State:
    return random_weights(name, seed, **_SMALLER.get(name, {}))


def weights(seed: int = 0, name: str = NAME) -> Weights:
    tensors = state(seed, name)
    return Weights(name, "a test", weights_digest(tensors), tensors)
