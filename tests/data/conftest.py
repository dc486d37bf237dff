"""Datasets laid out as their publishers do; the videos are empty files, for a layout never opens them."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest
from torch import nn

from tsmzoo import registry
from tsmzoo.artifact.contract import Contract
from tsmzoo.data import layouts
from tsmzoo.data.dataset import Dataset
from tsmzoo.errors import DataError
from tsmzoo.evaluation.evaluate import fitted
from tsmzoo.inference.describe import describe
from tsmzoo.weights.load import Network

ZOO = registry.load()
V2, V1, JESTER = "tsm_r50_sthv2_8f_mit", "tsm_r50_sthv1_8f_mit", "tsm_r50_jester_8f_mm0"
K400, UCF, HMDB = "tsm_r50_k400_8f_mit", "tsn_r50_ucf101_3seg_mm0", "tsn_r50_hmdb51_8seg_from_in_mm0"
KINETICS = "label,youtube_id,time_start,time_end,split"


def put(path: Path, *lines: str) -> Path:
    """Write a list, or with no lines the empty file that stands for a video."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def document(path: Path, content: object) -> Path:
    return put(path, json.dumps(content))


def contract(model: str) -> Contract:
    """Return the contract of a model; nothing here needs its network, nor the states of an online one."""
    entry = msgspec.structs.replace(ZOO.find(model), mode="offline")
    return describe(ZOO, Network(entry, nn.Identity(), "random"))


def names_of(model: str) -> tuple[str, ...]:
    names = ZOO.label_names(ZOO.find(model))
    assert names is not None
    return names


def read(*arguments: object, **options: object) -> dict[str, tuple[str, int | str]]:
    """Return where each video lies, from the folder, and its class: the name where there are any."""
    found = layouts.read(*arguments, **options)
    return {
        video.name: (
            os.path.relpath(video.path, arguments[0]),
            video.label if found.classes is None else found.classes[video.label],
        )
        for video in found.videos
    }


def refusal(*arguments: object, **options: object) -> str:
    """Return the one line that is said of data that cannot be read."""
    with pytest.raises(DataError) as caught:
        layouts.read(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def answers(found: Dataset, model: str) -> dict[str, str]:
    """Return by video the class that `model` must answer to be right."""
    ours = contract(model)
    return {video.name: ours.labels[video.label] for video in fitted(ZOO, found, ours).videos}


#: Two templates as the publisher writes them, with the names that they are of.
TEMPLATES = {
    "4": ("Holding [something] next to [something]", "Holding something next to something"),
    "17": ("Turning [something] upside down", "Turning something upside down"),
}


def something_v2(root: Path, validation: str, labels: str) -> None:
    items = [{"id": id_, "label": "holding a cup", "template": said} for id_, (said, _) in TEMPLATES.items()]
    document(root / validation, items)
    # As published: the indices are strings, and not in the order of the file.
    document(root / labels, {name: str(index) for index, name in reversed(list(enumerate(names_of(V2))))})


def kinetics(path: Path, *rows: tuple[str, str, int, int]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([KINETICS.split(","), *([*row, "validate"] for row in rows)])
    return path


def ucf101(root: Path) -> None:
    lists = root / "ucfTrainTestlist"
    # The official numbers begin at 1; the names are in another order than the alphabet's here.
    put(lists / "classInd.txt", "1 HandstandPushups", "2 Archery")
    put(lists / "testlist01.txt", "Archery/v_Archery_g01_c01.avi", "HandstandPushups/v_HandStandPushups_g01_c01.avi")
    put(lists / "testlist02.txt", "Archery/v_Archery_g08_c03.avi")
    put(lists / "trainlist01.txt", "Archery/v_Archery_g08_c03.avi 2")


def hmdb51(root: Path) -> Path:
    lists = root / "testTrainMulti_7030_splits"
    put(lists / "wave_test_split1.txt", "#1_wave_u_0.avi 2 ", "b_wave_1.avi 1 ", "c_wave_2.avi 0 ")
    put(lists / "brush_hair_test_split1.txt", "d_brush_hair_0.avi 0 ", "e_brush_hair_1.avi 2 ")
    put(lists / "wave_test_split2.txt", "b_wave_1.avi 2 ")
    put(lists / "brush_hair_test_split2.txt", "e_brush_hair_1.avi 1 ")
    return lists


def listed(folder: Path, labels: Iterable[int], classes: Iterable[str] = ()) -> Dataset:
    """Return videos of a list in `folder`, with names of classes beside it where there are any."""
    lines = [f"{number}.mp4 {label}" for number, label in enumerate(labels)]
    put(folder / "annotations.txt", *lines)
    put(folder / "0.mp4")
    if names := list(classes):
        put(folder / "labels.txt", *names)
    return layouts.read(folder)
