"""The queueing model of bench.capacity, against simulation and known limits."""

from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest

from bench.capacity.plan import MAX_USE, Plant, Replica, find_latency, find_load, find_max_rate
from bench.capacity.queueing import BatchServer, fit, miss_share, zipf

REPLICA = Replica(BatchServer(0.004, 0.001, 16), 0.01, 16, 0.5, 400)
PLANT = Plant(rate=1000, categories=1000, exponent=0.8, replicas=10, filed=5000)


def test_an_idle_server_computes_an_image_at_once() -> None:
    server = BatchServer(0.004, 0.001, 16)

    waits = server.simulate(rate=0.01, images=1000)

    assert waits == pytest.approx(server.seconds(1))


@pytest.mark.parametrize("load", [0.2, 0.5, 0.8])
@pytest.mark.parametrize(("fixed", "per_image"), [(0.004, 0.001), (0.01, 0.02), (0.05, 0.001)])
def test_the_simulation_keeps_the_bound_of_the_mean(fixed: float, per_image: float, load: float) -> None:
    server = BatchServer(fixed, per_image, 10**6)
    rate = load / per_image

    mean = server.simulate(rate, 100_000).mean()

    # The bound is close; a simulation of finite length may be a little over it.
    assert 0.85 * server.mean_bound(rate) < mean < 1.03 * server.mean_bound(rate)


def test_the_bound_refuses_an_endless_queue() -> None:
    with pytest.raises(ValueError, match="too many"):
        BatchServer(0.004, 0.001, 16).mean_bound(1000)


def test_fit_finds_the_server_behind_noisy_batches() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 17, 500)
    batches = [(int(size), 0.02 + 0.009 * size * rng.choice([1.0, 1.0, 1.0, 5.0])) for size in sizes]

    server = fit(batches, 16)

    assert server.fixed == pytest.approx(0.02, rel=0.05)
    assert server.per_image == pytest.approx(0.009, rel=0.05)


def test_fit_needs_batches_of_several_sizes() -> None:
    with pytest.raises(ValueError, match="several sizes"):
        fit([(1, 0.1), (1, 0.2)], 16)


@pytest.mark.parametrize("places", [50, 200, 600])
def test_miss_share_agrees_with_a_simulated_cache(places: int) -> None:
    popularity = zipf(1000, 0.8)
    held: OrderedDict[int, None] = OrderedDict()
    misses = 0
    for category in np.random.default_rng(0).choice(1000, 50_000, p=popularity):
        misses += category not in held
        held[category] = held.pop(category, None)
        if len(held) > places:
            held.popitem(last=False)

    assert miss_share(popularity, places) == pytest.approx(misses / 50_000, rel=0.05)


def test_routing_by_category_avoids_loads_of_models() -> None:
    by_category = find_load(PLANT, REPLICA, by_category=True)
    at_random = find_load(PLANT, REPLICA, by_category=False)

    assert by_category.misses == 0
    assert at_random.misses > 0.2
    assert at_random.limit[0] == "loading of models"


def test_a_popular_category_is_divided_among_replicas() -> None:
    plant = replace(PLANT, rate=4000, exponent=2.0)  # the first category has 61 % of the images

    load = find_load(plant, REPLICA, by_category=True)

    assert load.use["batches"] < 2


def test_overload_has_no_latency() -> None:
    load = find_load(replace(PLANT, rate=6000), REPLICA, by_category=True)

    with pytest.raises(ValueError, match="database would be used"):
        find_latency(load, REPLICA)


def test_latency_adds_the_overhead_and_grows_with_the_load() -> None:
    light, heavy = (
        find_latency(find_load(replace(PLANT, rate=rate), REPLICA, by_category=True), REPLICA)
        for rate in (10, 3000)
    )

    assert light[0] == pytest.approx(0.015, rel=0.01)
    assert heavy[0] > light[0]
    assert heavy[1] > heavy[0]


def test_greatest_rate_uses_the_first_resource_up_to_the_limit() -> None:
    rate = find_max_rate(PLANT, REPLICA, by_category=True)

    load = find_load(replace(PLANT, rate=rate), REPLICA, by_category=True)
    assert load.limit[1] == pytest.approx(MAX_USE, rel=0.05)
