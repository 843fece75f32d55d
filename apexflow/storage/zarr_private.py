"""What is taken of Zarr's private modules, and why; nobody else imports them.

``sync`` runs one coroutine on Zarr's own event loop: a `zarr.abc.store.Store` can delete, list
and set keys only by coroutines, and a loop of our own would not be the one that its locks know.
Buffers are what stores take and give. ``ArrayV3Metadata`` says how a chunk's key is written.
"""

from __future__ import annotations

from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.core.metadata import ArrayV3Metadata
from zarr.core.sync import sync

__all__ = ["ArrayV3Metadata", "Buffer", "BufferPrototype", "default_buffer_prototype", "sync"]
