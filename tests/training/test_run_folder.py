"""Whose results a folder holds, also one that an earlier version made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from apexflow.errors import ApexflowError
from apexflow.training.config import TrainConfig
from apexflow.training.run_folder import claim, refuse_other_kind

DATA = {"clips": 3, "classes": ["a", "b"]}
MACHINE = {"device": "cpu", "mixed precision": False}


def described(**changes: Any) -> dict[str, Any]:
    config = TrainConfig.of("ststnet", labels="samm5", **changes).to_dict()
    return {"config": config, "data": dict(DATA), "machine": dict(MACHINE)}


def made_by_another_version(folder: Path, without: str = "", **more: Any) -> None:
    """Leave a folder as a version without one setting, or with more of them, made it."""
    there = described()
    there["config"].pop(without, None)
    there["config"] |= more
    (folder / "config.json").write_text(json.dumps(there))


def test_a_new_folder_is_claimed_and_known_again(tmp_path: Path) -> None:
    claim(tmp_path, described())
    assert json.loads((tmp_path / "config.json").read_text()) == described()
    claim(tmp_path, described())
    with pytest.raises(ApexflowError, match="holds results with jitter 0, now it is 2"):
        claim(tmp_path, described(jitter=2))


@pytest.mark.parametrize("name", ["jitter", "clip_norm", "report_leak", "exclude"])
def test_a_setting_that_did_not_exist_has_its_default(tmp_path: Path, name: str) -> None:
    made_by_another_version(tmp_path, without=name)
    claim(tmp_path, described())


def test_what_was_done_without_a_setting_is_another_result_than_with_it(tmp_path: Path) -> None:
    made_by_another_version(tmp_path, without="jitter")
    with pytest.raises(ApexflowError, match="holds results with jitter 0, now it is 2"):
        claim(tmp_path, described(jitter=2))


def test_labels_were_called_protocol(tmp_path: Path) -> None:
    made_by_another_version(tmp_path, without="labels", protocol="samm5")
    claim(tmp_path, described())
    made_by_another_version(tmp_path, without="labels", protocol="megc2019")
    with pytest.raises(ApexflowError, match="holds results with labels 'megc2019'"):
        claim(tmp_path, described())


def test_a_folder_that_names_no_model_is_refused(tmp_path: Path) -> None:
    made_by_another_version(tmp_path, without="model")
    with pytest.raises(ApexflowError, match="holds results with model None, now it is 'ststnet'"):
        claim(tmp_path, described())


def test_a_setting_of_a_later_version_is_refused(tmp_path: Path) -> None:
    made_by_another_version(tmp_path, mixup=0.2)
    with pytest.raises(ApexflowError, match=r"holds results with mixup 0\.2, now it is None"):
        claim(tmp_path, described())


def test_one_seed_and_several_have_folders_of_their_own(tmp_path: Path) -> None:
    claim(tmp_path, described())
    refuse_other_kind(tmp_path, several=False)
    with pytest.raises(ApexflowError, match="results of one seed"):
        refuse_other_kind(tmp_path, several=True)
    (tmp_path / "config.json").rename(tmp_path / "kept.json")
    (tmp_path / "seed-0").mkdir()
    claim(tmp_path / "seed-0", described())
    with pytest.raises(ApexflowError, match="results of several seeds"):
        refuse_other_kind(tmp_path, several=False)
