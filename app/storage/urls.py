"""Stores by URL: file:///mnt/share, s3://bucket/prefix, or another of fsspec's file systems."""

import importlib.util
import re
import uuid
from pathlib import Path
from typing import Any, Final

from app.storage.folder_store import FolderStore
from app.storage.fsspec_store import FsspecStore
from app.storage.store import Store

# A server that hangs must not hold up its callers: seconds to connect, and without an answer. The store
# itself repeats what may be repeated.
_TIMEOUTS: Final = {"connect_timeout": 3, "read_timeout": 5, "retries": {"total_max_attempts": 1}}
# One request a file: s3fs would ask for the size first, to read a large one in parallel.
_S3: Final = {"config_kwargs": _TIMEOUTS, "max_concurrency": 1}
_OPTIONS: Final[dict[str, dict[str, Any]]] = {"s3": _S3, "s3a": _S3}


class StoreError(ValueError):
    """A store's URL cannot be used; the message says why and what to do."""


def require_store_url(url: str) -> None:
    """Check a URL without connecting, or raise StoreError."""
    scheme, separator, path = url.partition("://")
    if not (separator and path.strip("/")) or "::" in url:
        raise StoreError("must look like s3://BUCKET/PREFIX or file:///DIR")
    if re.match("[^/]*:[^/]*@", path):
        raise StoreError("must hold no password; S3 reads AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    if scheme == "file":
        if not path.startswith("/"):
            raise StoreError("must name an absolute folder, such as file:///mnt/share")
        return
    from fsspec.registry import known_implementations

    if scheme not in known_implementations:
        raise StoreError(f"{scheme}:// is no file system of fsspec; use s3://BUCKET/PREFIX or file:///DIR")
    package = known_implementations[scheme]["class"].partition(".")[0]
    if importlib.util.find_spec(package) is None:
        what = "flowgauge[s3]" if package == "s3fs" else package
        raise StoreError(f"{scheme}:// needs a package that is not installed: pip install '{what}'")


def open_store(url: str, sub: str = "", *, sync: bool = True) -> Store:
    """Return the store at a URL, or at a subfolder of it. Nothing is sent before its first use.

    Args:
        sync: of a folder, see `FolderStore`.

    Raises:
        StoreError: see `require_store_url`.
    """
    require_store_url(url)
    scheme, _, path = url.partition("://")
    if scheme == "file":
        store = FolderStore(Path(path) / sub, sync=sync, share=Path(path))
        store.remove_abandoned()
        return store
    import fsspec

    # Each store has a client of its own, with the credentials of now; a listing is as of now too.
    options = _OPTIONS.get(scheme, {})
    fs, root = fsspec.url_to_fs(url, skip_instance_cache=True, use_listings_cache=False, **options)
    if scheme in _OPTIONS:
        fs.retries = 1
    return FsspecStore(fs, f"{root.rstrip('/')}/{sub}".rstrip("/"))


def require_conditional_put(store: Store) -> None:
    """Check that a store can be written and creates a file once only.

    Raises:
        StoreError: it has no conditional put.
        StoreUnavailable: it does not answer, or refuses.
    """
    name = f"probe/{uuid.uuid4().hex}"
    try:
        store.create(name, b"")
        store.create(name, b"")
    except FileExistsError:
        return
    finally:
        store.delete(name)
    raise StoreError("the store replaces a file that it was asked to create: it has no conditional put")
