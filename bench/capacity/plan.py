"""A plan: whether a number of replicas serves a plant, what limits it, and what routing by category gains."""

import heapq
from dataclasses import dataclass, replace

import numpy as np

from bench.capacity.queueing import BatchServer, Floats, miss_share, zipf

MAX_USE = 0.8  # of everything: beyond, small errors of the model become long queues
_SIMULATED = 100_000  # images
_STEPS = 30  # of the search for a rate


@dataclass(frozen=True)
class Replica:
    """What one replica takes, with one GPU or on the CPU: measured, or assumed.

    Attributes:
        batches: time of its batches.
        overhead: seconds of a request outside of its batch on an idle server, all of which count as CPU time.
        cores: CPU cores of the replica.
        load_seconds: seconds to load a model that is not in memory; one loads at a time.
        places: number of models that fit into memory.
    """

    batches: BatchServer
    overhead: float
    cores: float
    load_seconds: float
    places: int


@dataclass(frozen=True)
class Plant:
    """What a plant asks for.

    Attributes:
        rate: images a second, all categories together.
        categories: number of categories.
        exponent: of Zipf's law of their popularity; 0 if all are equal.
        replicas: number of replicas.
        filed: inspections a second that the database accepts from all replicas.
    """

    rate: float
    categories: int
    exponent: float
    replicas: int
    filed: float


@dataclass(frozen=True)
class Load:
    """The load of the busiest replica and of the database.

    Attributes:
        rate: images a second of the replica.
        misses: share of them whose model must be loaded first.
        use: share in use of each resource.
    """

    rate: float
    misses: float
    use: dict[str, float]

    @property
    def limit(self) -> tuple[str, float]:
        """The resource that is used most, and its share in use."""
        return max(self.use.items(), key=lambda item: item[1])


def find_load(plant: Plant, replica: Replica, *, by_category: bool) -> Load:
    """Compute the load of the busiest replica.

    Args:
        plant: what is asked for.
        replica: of which there are `plant.replicas`.
        by_category: True if each category has a replica of its own, or several if one is too slow for it;
            False if images go to any replica.
    """
    rates = plant.rate * zipf(plant.categories, plant.exponent)
    capacity = replica.batches.capacity
    own = _place(rates, plant.replicas, MAX_USE * capacity) if by_category else rates / plant.replicas
    rate = float(own.sum())
    misses = miss_share(own / rate, replica.places)
    use = {
        "batches": rate / capacity,
        "CPU": rate * replica.overhead / replica.cores,
        "loading of models": rate * misses * replica.load_seconds,
        "database": plant.rate / plant.filed,
    }
    return Load(rate, misses, use)


def find_max_rate(plant: Plant, replica: Replica, *, by_category: bool) -> float:
    """Return the images a second of the plant at which the first resource reaches `MAX_USE`."""
    low, high = 0.0, plant.replicas * replica.batches.capacity
    for _ in range(_STEPS):
        middle = (low + high) / 2
        load = find_load(replace(plant, rate=middle), replica, by_category=by_category)
        low, high = (middle, high) if load.limit[1] <= MAX_USE else (low, middle)
    return low


def find_latency(load: Load, replica: Replica, seed: int = 0) -> tuple[float, float]:
    """Return the median and the 95th percentile of seconds, for images whose model is in memory.

    Raises:
        ValueError: a resource is overloaded, so that queues grow without end.
    """
    resource, use = load.limit
    if use >= 1:
        raise ValueError(f"{resource} would be used to {use:.0%}")
    waits = replica.overhead + replica.batches.simulate(load.rate, _SIMULATED, seed)
    p50, p95 = np.quantile(waits, (0.5, 0.95))
    return float(p50), float(p95)


def _place(rates: Floats, replicas: int, most: float) -> Floats:
    """Place categories on replicas; return the rates of the categories of the busiest one.

    The next category, most popular first, goes to the least busy replica. One of more than `most` images a
    second is divided evenly among several.
    """
    copies = np.clip(np.ceil(rates / most), 1, replicas).astype(int)
    parts = np.repeat(rates / copies, copies)
    least_busy = [(0.0, replica) for replica in range(replicas)]
    places = np.empty(len(parts), int)
    for part in np.argsort(-parts):
        busy, places[part] = least_busy[0]
        heapq.heapreplace(least_busy, (busy + parts[part], int(places[part])))
    found: Floats = parts[places == max(least_busy)[1]]
    return found
