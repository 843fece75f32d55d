"""Where a store is: a folder, a URL or a Zarr store; what is there, and which run holds it."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zarr
from zarr.abc.store import Store as ZarrStore
from zarr.errors import GroupNotFoundError

from apexflow.errors import ApexflowError
from apexflow.storage.zarr_private import settle
from apexflow.system import lock_folder, locks_folders

logger = logging.getLogger(__name__)

Target = str | Path | ZarrStore

_OBJECT_STORES = ("s3", "s3a", "gs", "az", "adl", "abfs", "abfss")
BEING_CREATED = {"apexflow": "being created"}
"""The attributes of a store whose creation has begun, and not ended."""


def local_path(target: Target) -> Path | None:
    """Return the folder of a store on a local disk, None for any other kind of store."""
    if isinstance(target, ZarrStore):
        root = getattr(target, "root", None)
        return root if isinstance(root, Path) else None
    return None if "://" in str(target) else Path(target)


def target_name(target: Target) -> str:
    """Return what messages call the store."""
    return str(target)


def zarr_target(target: Target) -> Any:
    """Return the target as Zarr takes it."""
    if isinstance(target, str) and target.partition("://")[0] in _OBJECT_STORES:
        return _object_store(target)
    return str(target) if isinstance(target, Path) else target


def store_exists(target: Target) -> bool:
    """Whether anything is at ``target``: a file, a folder with entries, a Zarr group.

    What a killed run left of a store that it had only begun to make is nothing.
    """
    path = local_path(target)
    if path is not None and not path.is_dir():
        return path.is_file()
    if path is not None and not (path / "zarr.json").is_file():
        return any(entry.suffix != ".partial" for entry in path.iterdir())
    try:
        return root_attributes(target) not in (None, BEING_CREATED)
    except (ValueError, KeyError):  # a zarr.json that is none of ours
        return True


def root_attributes(target: Target) -> dict[str, Any] | None:
    """Return the attributes of the Zarr group at ``target``; None when there is none."""
    try:
        return dict(zarr.open_group(zarr_target(target), mode="r", zarr_format=3).attrs)
    except (GroupNotFoundError, FileNotFoundError):
        return None


def not_ours(name: str) -> ApexflowError:
    """Return the error that something else is where a store should be."""
    return ApexflowError(f"{name} exists and is not an apexflow store; choose another output")


@contextmanager
def exclusive(target: Target, *, who: str = "run") -> Iterator[None]:
    """Hold a local folder for one ``who``; the operating system frees it when that dies.

    Raises `ApexflowError` when another one holds it.
    """
    path = local_path(target)
    if path is None:
        yield
        return
    if not locks_folders():  # Windows
        logger.warning("%s cannot be locked here: see that no other %s writes it", path, who)
        yield
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        try:
            lock_folder(handle)
        except BlockingIOError:
            raise ApexflowError(
                f"another {who} is writing {path}; wait for it, or stop it first"
            ) from None
        except OSError as error:  # some network file systems lock no folder
            logger.warning(
                "%s cannot be locked (%s): see that no other %s writes it",
                *(path, error.strerror, who),
            )
        yield
    finally:
        os.close(handle)


@contextmanager
def disk_errors(what: str, remedy: str) -> Iterator[None]:
    """Turn what the operating system says of a full or read-only disk into one line.

    Raises `ApexflowError` in the place of an `OSError`, once nothing is being written any more;
    those of connections are not a disk's.
    """
    try:
        yield
    except (ConnectionError, TimeoutError):
        raise
    except OSError as error:
        if type(error).__module__.startswith("distributed"):
            raise
        settle()
        text = str(error).splitlines()
        reason = error.strerror or (text[0] if text else type(error).__name__)
        raise ApexflowError(f"{what}: {reason}; {remedy}") from None


def sweep(target: Target) -> int:
    """Delete what killed writers left half-written; return how many files that was."""
    path = local_path(target)
    if path is None:
        return 0
    left = list(path.rglob("*.partial"))
    for file in left:
        file.unlink(missing_ok=True)
    return len(left)


def sync_all(target: Target) -> None:
    """Flush to disk all that was written to a local store's file system.

    Once a phase of a run, and once a batch of many small files: the seven files of a clip took
    1.7 ms one by one, 0.3 ms by this one call, which takes no longer for more files.
    """
    path = local_path(target)
    if path is None or not hasattr(os, "sync"):
        return
    if _SYNCFS is None:
        os.sync()
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        if _SYNCFS(handle) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    """Flush one file, or the names in a folder, to disk."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that cannot
            raise
    finally:
        os.close(handle)


def _find_syncfs() -> Any:
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)


_SYNCFS = _find_syncfs()


def _object_store(url: str) -> ZarrStore:
    """Open a bucket by its URL; keys, region and endpoint come from the environment."""
    from zarr.storage import ObjectStore

    try:
        from obstore.store import from_url
    except ImportError:
        raise ApexflowError(f"{url} needs obstore: pip install 'apexflow[s3]'") from None
    return ObjectStore(from_url(url))
