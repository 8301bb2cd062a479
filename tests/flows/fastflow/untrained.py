"""Weights that nobody trained, of a timm architecture small enough to write and read in an instant."""

from bench.chance import weights_of_chance
from flows.fastflow.weights import State, Weights, digest

NAME = "test_resnet"


def state(seed: int = 0, name: str = NAME) -> State:
    """The tensors, also of another architecture."""
    return weights_of_chance(name, seed)


def weights(seed: int = 0, name: str = NAME) -> Weights:
    """The same as `find_weights` would give them."""
    tensors = state(seed, name)
    return Weights(name, "a test", digest(tensors), tensors)
