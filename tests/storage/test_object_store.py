"""A store in a bucket of a real S3 server program on this machine."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from apexflow import process
from apexflow.catalog import Catalog
from apexflow.engine.recipe import Recipe
from apexflow.errors import ApexflowError
from apexflow.storage.checks import verify
from apexflow.storage.store import open_store
from apexflow.storage.target import store_exists

pytest.importorskip("obstore", reason="the extra s3 is not installed")
pytest.importorskip("moto", reason="moto's S3 server is not installed")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(endpoint, server)
        request = urllib.request.Request(f"{endpoint}/motion", method="PUT")
        urllib.request.urlopen(request).close()
        yield "s3://motion"
    finally:
        server.kill()
        server.wait()


def _wait_for(endpoint: str, server: subprocess.Popen[bytes]) -> None:
    while server.poll() is None:
        try:
            urllib.request.urlopen(endpoint).close()
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
    raise RuntimeError("moto's server does not start")


def test_a_bucket_holds_the_same_store(
    bucket: str, tmp_path: Path, catalog: Catalog, small_recipe: Recipe
) -> None:
    url, path = f"{bucket}/sets/samm.zarr", tmp_path / "s.zarr"
    options = {"recipe": small_recipe, "progress": False}
    process(catalog, path, workers=0, **options)
    assert not store_exists(url)
    process(catalog[:3], url, workers=0, **options)
    summary = process(catalog, url, workers=2, **options)
    assert (summary.done, summary.skipped, len(summary.failed)) == (2, 3, 2)
    ours, theirs = open_store(path), open_store(url)
    assert verify(theirs) == []
    for name in ("frames/image", "flow/onset-apex", "maps/hsv", "clips/record"):
        np.testing.assert_array_equal(ours.array(name)[:], theirs.array(name)[:])
    assert process(catalog, url, workers=0, **options).done == 0
    other = Recipe.from_dict(small_recipe.to_dict() | {"maps": {}})
    with pytest.raises(ApexflowError, match="was made with recipe"):
        process(catalog, url, recipe=other, workers=0, progress=False)


def test_a_bucket_that_is_not_there(bucket: str, catalog: Catalog, small_recipe: Recipe) -> None:
    with pytest.raises(ApexflowError):
        process(catalog, "s3://no-such-bucket/s.zarr", recipe=small_recipe, workers=0)
