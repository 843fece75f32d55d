"""Features as one NumPy file, for other programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from apexflow.features.parts import Parts
from apexflow.storage.store import Store


def write_file(store: Store, path: str | Path) -> None:
    """Write a store's features; the same store gives the same bytes.

    It holds ``features`` (clip, feature) float32 and ``names`` of the features; a row a clip of
    ``dataset``, ``subject``, ``person``, ``clip``, ``emotion``, ``label`` (-1 where there is
    none) and ``flags``; ``recipe_hash``, ``source_digest``, and ``recipe`` as JSON. Clips that
    failed have no row.
    """
    path = Path(path)
    name, layout = next(iter(store.layout.features.items()))
    found = [(row, record) for row, record in store.finished() if not store.gone()[row]]
    rows = [row for row, _ in found]
    values = [store.read(f"features/{name}", row, record) for row, record in found]
    columns: dict[str, Any] = {
        column: np.array([store.column(column).tolist()[row] for row in rows])
        for column in ("dataset", "subject", "clip", "emotion", "label")
    }
    partial_path = path.with_name(path.name + ".partial")
    with partial_path.open("wb") as file:
        np.savez_compressed(
            file,
            features=np.stack(values) if values else np.zeros((0, layout.length), np.float32),
            names=np.array(Parts.from_dict(layout.parts).names),
            person=np.array([store.people()[row] for row in rows]),
            flags=np.array([record.flags for _, record in found]),
            recipe_hash=np.array(store.recipe_hash),
            source_digest=np.array(store.attributes["runs"][-1]["source_digest"]),
            recipe=np.array(json.dumps(store.attributes["recipe"], sort_keys=True)),
            **columns,
        )
    partial_path.replace(path)
