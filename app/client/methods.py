"""Arguments of both clients, and their methods that send one call."""

import os
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from . import calls, product_calls
from .connection import http_arguments
from .request import Call

if TYPE_CHECKING:
    from .asynchronous import AsyncClient
    from .sync import Client

P = ParamSpec("P")
T = TypeVar("T")


class _Method(Generic[P, T]):
    """A method that sends the call that a function of calls.py or product_calls.py builds."""

    def __init__(self, build: Callable[P, Call[T]]) -> None:
        @wraps(build)
        def method(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Any:
            return self.send(build(*args, **kwargs))

        self._method: Any = method

    @overload
    def __get__(self, client: None, kind: type) -> Callable[..., Any]: ...

    @overload
    def __get__(self, client: "Client", kind: type) -> Callable[P, T]: ...

    @overload
    def __get__(self, client: "AsyncClient", kind: type) -> Callable[P, Coroutine[Any, Any, T]]: ...

    def __get__(self, client: Any, kind: type) -> Any:
        return self._method.__get__(client, kind)


class BaseClient:
    """The arguments and methods of both clients; `Client` describes them."""

    _open: Callable[..., Any]

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        ca: str | os.PathLike[str] | None = None,
        timeout: float = 60,
        patience: float = 30,
    ) -> None:
        self._timeout, self._patience = timeout, patience
        arguments = http_arguments(url, key, ca, timeout)
        self.url: str = arguments["base_url"]
        self._http = self._open(**arguments)

    inspect = _Method(calls.inspect)
    inspect_all = _Method(calls.inspect_all)
    models = _Method(calls.models)
    model = _Method(calls.model)
    inspection = _Method(calls.inspection)
    part = _Method(calls.part)
    overlay = _Method(calls.overlay)
    heatmap = _Method(calls.heatmap)
    source = _Method(calls.source)
    score_map = _Method(calls.score_map)
    reviews = _Method(calls.reviews)
    review = _Method(calls.review)
    start_job = _Method(calls.start_job)
    jobs = _Method(calls.jobs)
    job = _Method(calls.job)
    job_report = _Method(calls.job_report)
    cancel_job = _Method(calls.cancel_job)
    products = _Method(product_calls.products)
    product = _Method(product_calls.product)
    create_product = _Method(product_calls.create_product)
    change_product = _Method(product_calls.change_product)
    delete_product = _Method(product_calls.delete_product)
    add_images = _Method(product_calls.add_images)
    import_images = _Method(product_calls.import_images)
    product_image = _Method(product_calls.product_image)
    change_images = _Method(product_calls.change_images)
    delete_image = _Method(product_calls.delete_image)
