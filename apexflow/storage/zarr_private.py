"""What is taken of Zarr's private modules, and why; nobody else imports them.

``sync`` runs one coroutine on Zarr's own event loop: a `zarr.abc.store.Store` can delete, list
and set keys only by coroutines, and a loop of our own would not be the one that its locks know.
Buffers are what stores take and give. ``ArrayV3Metadata`` says how a chunk's key is written.
"""

from __future__ import annotations

import asyncio

from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.core.metadata import ArrayV3Metadata
from zarr.core.sync import sync

__all__ = [
    "ArrayV3Metadata",
    "Buffer",
    "BufferPrototype",
    "default_buffer_prototype",
    "settle",
    "sync",
]


def settle() -> None:
    """Wait until what Zarr has begun has ended, however it ends.

    Of writes that it makes side by side the first that fails raises, while the others go on: into
    a store that its caller takes for left alone, and complaining when the process ends.
    """

    async def others() -> None:
        begun = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*begun, return_exceptions=True)

    sync(others())
