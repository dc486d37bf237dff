"""Plans: which protocol is followed, what of it a user may change, and which files it fits."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tsmzoo import models, registry
from tsmzoo.artifact.contract import Contract
from tsmzoo.data.sampling import RULES, Wanted
from tsmzoo.errors import DataError, RegistryError
from tsmzoo.evaluation import protocol as evaluation_protocol
from tsmzoo.evaluation.protocol import Changes, EvaluationPlan
from tsmzoo.inference.describe import describe
from tsmzoo.registry import recipes
from tsmzoo.weights.load import Network

ZOO = registry.load()

#: Views, and side of the crops of a model of 224 px, by protocol: as the publishers have them.
VIEWS = {
    "deepmind_test": (1, 224),
    "mit_dense10_fullres3": (30, 256),
    "mit_flow_1clip": (1, 224),
    "mit_sth_center_1clip": (1, 224),
    "mit_sth_fullres_2clip": (6, 256),
    "mit_uniform_10crop": (10, 224),
    "mit_uniform_1crop": (1, 224),
    "mm_i3d_dense10_crop3x256": (30, 256),
    "mm_i3d_uniform10_crop3x256": (30, 256),
    "mm_tsm_dense10x8_crop10x224": (100, 224),
    "mm_tsm_dense10x8_crop3x256": (30, 256),
    "mm_tsm_sthv2_16f_as_coded_crop3x256": (3, 256),
    "mm_tsm_uniform16_crop10x224": (10, 224),
    "mm_tsm_uniform16_crop1x224": (1, 224),
    "mm_tsm_uniform16_crop3x256": (3, 256),
    "mm_tsm_uniform16_twice_crop3x256": (6, 256),
    "mm_tsm_uniform8_crop10x224": (10, 224),
    "mm_tsm_uniform8_crop1x224": (1, 224),
    "mm_tsm_uniform8_crop3x256": (3, 256),
    "mm_tsm_uniform8_twice_crop3x256": (6, 256),
    "mm_tsn_dense10x25_crop1x224": (10, 224),
    "mm_tsn_dense10x8_crop10x224": (100, 224),
    "mm_tsn_dense10x8_crop1x224": (10, 224),
    "mm_tsn_flow_uniform25_crop10x224": (10, 224),
    "mm_tsn_uniform16_crop1x224": (1, 224),
    "mm_tsn_uniform16_crop3x256": (3, 256),
    "mm_tsn_uniform25_crop10x224": (10, 224),
    "mm_tsn_uniform25_crop3x256": (3, 256),
    "mm_tsn_uniform5_crop1x256": (1, 256),
    "mm_tsn_uniform6_crop3x256": (3, 256),
    "mm_tsn_uniform8_crop10x224": (10, 224),
    "mm_tsn_uniform8_crop1x224": (1, 224),
    "mm_tsn_uniform8_crop1x256": (1, 256),
    "mm_tsn_uniform8_crop3x256": (3, 256),
    "movinet_1clip_172": (1, 224),
    "mm_3d_uniform10_13x6_fullres3": (30, 256),
    "mm_3d_uniform10_16x5_fullres3": (30, 256),
    "ptv_x3d_4x12_10x3": (30, 256),
    "ptv_x3d_13x6_10x3": (30, 256),
    "ptv_x3d_16x5_10x3": (30, 256),
    "movinet_1clip_224": (1, 224),
    "ptv_10x3": (30, 256),
    "uniform8_center_1clip": (1, 224),
}


def choose(model: str, protocol: str | None = None, contract: Contract | None = None, **changes: Any) -> EvaluationPlan:
    return evaluation_protocol.choose(ZOO.find(model), contract, protocol, Changes(**changes))


@pytest.fixture(scope="module")
def small() -> Contract:
    entry = ZOO.find("tsm_mbv2_motion")
    return describe(ZOO, Network(entry, models.build(entry, seed=0), "random", seed=0))


def file_of(contract: Contract, model: str, frames: int, size: int) -> Contract:
    """Return what is told of a file that a model was exported to."""
    mode = ZOO.find(model).mode
    return msgspec.structs.replace(contract, model=model, mode=mode, frames=frames, size=size, artifact=f"{model}.onnx")


# --- protocols -------------------------------------------------------------------------------------------------------


#: Of MoViNet and X3D, as their publishers resize videos.
SHORT_SIDES = {160: 182, 172: 192, 312: 356}


def test_every_protocol_is_here() -> None:
    ours = {"dense_center_1clip"}  # of no publisher
    assert {path.stem for path in (recipes.RECIPES / "eval").glob("*.yaml")} == set(VIEWS) | ours


@pytest.mark.parametrize("name", VIEWS)
def test_a_protocol_is_made_definite_for_a_model_that_names_it(name: str) -> None:
    named = [entry for entry in ZOO.models if any(result.protocol == name for result in entry.results)]
    found = recipes.protocol(name)
    for entry in named or [ZOO.find("tsm_r50_k400_8f_mit")]:
        followed = evaluation_protocol.choose(entry, None, name, Changes())
        views, size = VIEWS[name]
        assert followed.views == found.views == views
        short_side = SHORT_SIDES.get(entry.size, round(entry.size * 256 / 224))
        assert followed.short_side == short_side
        assert followed.size == (size if entry.size == 224 else short_side if size == 256 else entry.size)
        assert followed.answer == ("last" if entry.backbone.endswith("_stream") else "mean")
        assert (followed.protocol, followed.name, followed.changes) == (name, name, Changes())
        assert (followed.pipeline, followed.sampling, followed.average) == (
            found.pipeline,
            found.sampling,
            found.average,
        )
        assert followed.pipeline == ("mit" if name.startswith(("mit_", "uniform8")) else "mmaction2")
        assert followed.stack == (1 if entry.modality == "rgb" or entry.family == "i3d" else 5)
        clips = RULES[followed.sampling](300, followed.wanted)
        assert [len(clip) for clip in clips] == [followed.frames] * followed.clips


@pytest.mark.parametrize(
    ("model", "protocol", "wanted"),
    [
        ("tsm_r50_k400_8f_mit", "dense", Wanted(8, 10, 8)),
        ("tsm_r50_k400_16f_mit", "dense", Wanted(16, 10, 4)),
        ("tsn_r50_k400_3seg", "mm_tsn_uniform25_crop3x256", Wanted(25, 1, 2)),
        ("tsm_r50_k400_8f_mit", "i3d", Wanted(32, 10, 2)),
        ("tsm_r50_sthv2_8f_mit", "accurate", Wanted(8, 2, 8)),
        ("tsm_r50_k400_flow", "flow", Wanted(8, 1, 8, 5)),
        ("tsn_r50_k400_3seg_flow_320p_mm0", None, Wanted(25, 1, 2, 5)),
        ("tsm_mbv2_online", None, Wanted(8, 1, 8)),
        ("i3d_r50_k400", None, Wanted(32, 10, 2)),
        ("i3d_r50_k400_8x8", None, Wanted(8, 10, 8)),
        ("i3d_inception_k400_flow", None, Wanted(300)),
        ("i3d_inception_charades_rgb", None, Wanted(64)),
        ("i3d_r50_3x3x3", None, Wanted(32, 1, 2)),
        ("i3d_r50_replace_8f", None, Wanted(8, 1, 8)),
        ("movinet_a0_base", None, Wanted(50, 1, 5)),
        ("movinet_a0_stream", None, Wanted(50, 1, 5)),
    ],
)
def test_clips_are_those_of_the_protocol_or_the_model(model: str, protocol: str | None, wanted: Wanted) -> None:
    assert choose(model, protocol).wanted == wanted


@pytest.mark.parametrize("protocol", ["mit_dense10_fullres3", "mit_uniform_1crop", "mit_uniform_10crop"])
def test_mits_tsn_of_5_segments_is_tested_with_8(protocol: str) -> None:
    """As its README's commands and its figures have it (`--test_segments=8`)."""
    assert choose("tsn_r50_k400_mit", protocol).frames == 8


@pytest.mark.parametrize(
    ("model", "protocol"),
    [
        ("tsn_r50_k400_mit", "mit_dense10_fullres3"),
        ("tsm_r50_sthv1_8f_mit", "mit_sth_center_1clip"),
        ("tsm_r50_sthv1_8f_mm0", "mm_tsm_uniform8_crop1x224"),
        ("tsn_r50_k400_3seg_320p_mm0", "mm_tsn_uniform25_crop3x256"),
        ("tsm_mbv2_motion_online", "uniform8_center_1clip"),
        # Without a figure that names one.
        ("tsn_r50_k400_3seg_omni_340x256_mm0", "mit_sth_center_1clip"),
        ("tsm_mbv2_online", "uniform8_center_1clip"),
        ("i3d_inception_k400_rgb", "deepmind_test"),
        ("i3d_r50_k400_dense", "mm_i3d_dense10_crop3x256"),
        # Without weights, and so without figures.
        ("i3d_r50_3x3x3", "dense_center_1clip"),
        ("i3d_r50_replace_8f", "mit_sth_center_1clip"),
    ],
)
def test_without_a_name_it_is_the_first_published_one(model: str, protocol: str) -> None:
    assert choose(model).protocol == protocol


def test_short_names_are_names() -> None:
    shorts = {short: name for name in VIEWS if (short := recipes.protocol(name).short)}
    assert {"dense", "efficient", "accurate", "10crop", "flow", "mm-val", "mm-test", "i3d"} == shorts.keys()
    assert shorts.keys().isdisjoint(VIEWS)
    for short, name in shorts.items():
        assert choose("tsm_r50_k400_8f_mit", short) == choose("tsm_r50_k400_8f_mit", name)


@pytest.mark.parametrize(
    ("name", "words"),
    [("dens", "did you mean dense"), ("mit_uniform_1crops", "mit_uniform_1crop"), ("xyz", "there are 10crop, ")],
)
def test_the_nearest_names_are_told(name: str, words: str) -> None:
    with pytest.raises(RegistryError, match=words) as caught:
        choose("tsm_r50_k400_8f_mit", name)
    assert repr(name) in str(caught.value)


# --- what a user changes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "recorded", "name"),
    [
        ({"clips": 2}, {"clips": 2}, "with clips 2"),
        ({"crops": 3}, {"crops": 3}, "with crops 3"),
        ({"frames": 16}, {"frames": 16}, "with frames 16"),
        ({"clips": 2, "crops": 10, "frames": 4}, {"clips": 2, "crops": 10, "frames": 4}, "with clips 2, crops 10, fra"),
        # What the protocol and the model have anyway is no change.
        ({"clips": 1, "crops": 1, "frames": 8}, {}, ""),
        ({"clips": 1, "crops": 5}, {"crops": 5}, "with crops 5"),
    ],
)
def test_changes_are_made_and_told(changes: dict[str, Any], recorded: dict[str, Any], name: str) -> None:
    followed = choose("tsm_r50_sthv2_8f_mit", "efficient", **changes)
    assert msgspec.to_builtins(followed.changes) == recorded
    assert followed.name.startswith(f"mit_sth_center_1clip {name}".strip())
    assert followed.protocol == "mit_sth_center_1clip"
    assert {key: getattr(followed, key) for key in changes} == changes
    assert followed.views == followed.clips * followed.crops
    assert followed.size == 224


@pytest.mark.parametrize(
    ("protocol", "frames", "stride"),
    [("dense", 16, 4), ("dense", 3, 21), ("dense", 100, 1), ("i3d", 8, 2)],
)
def test_a_dense_clip_of_other_frames_is_as_long(protocol: str, frames: int, stride: int) -> None:
    """Unless the protocol has a stride of its own."""
    assert choose("tsm_r50_k400_8f_mit", protocol, frames=frames).stride == stride


@pytest.mark.parametrize(
    ("protocol", "clips", "most"),
    [("efficient", 3, 2), ("mm_tsm_sthv2_16f_as_coded_crop3x256", 2, 1), ("dense", 99, 0)],
)
def test_uniform_clips_are_two_at_most(protocol: str, clips: int, most: int) -> None:
    if not most:
        assert choose("tsm_r50_k400_8f_mit", protocol, clips=clips).clips == clips
        return
    with pytest.raises(DataError, match=f"takes {most} clips at most"):
        choose("tsm_r50_k400_8f_mit", protocol, clips=clips)


def test_so_many_frames_of_a_whole_video_are_its_middle() -> None:
    assert (choose("i3d_inception_k400_rgb").sampling, choose("i3d_inception_k400_rgb").frames) == ("whole", 300)
    followed = choose("i3d_inception_k400_rgb", frames=64)
    assert (followed.name, followed.sampling, followed.wanted) == ("deepmind_test with frames 64", "spread", Wanted(64))
    assert RULES[followed.sampling](100, followed.wanted) == [list(range(18, 82))]


def test_an_online_model_has_no_frames_of_its_own() -> None:
    with pytest.raises(DataError, match=r"tsm_mbv2_online .* give --frames"):
        choose("tsm_mbv2_online", "efficient")
    followed = choose("tsm_mbv2_online", "efficient", frames=12)
    assert (followed.frames, followed.name) == (12, "mit_sth_center_1clip with frames 12")


# --- exported files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "frames", "size", "protocol"),
    [
        ("tsm_r50_sthv1_8f_mm0", 8, 224, "mm_tsm_uniform8_crop1x224"),
        ("tsm_r50_sthv1_8f_mm0", 8, 256, "mm_tsm_uniform8_twice_crop3x256"),
        ("tsn_r50_k400_3seg", 25, 224, "mm_tsn_uniform25_crop10x224"),
        ("tsm_mbv2_motion", 8, 64, "uniform8_center_1clip"),
        ("tsm_mbv2_online", 1, 224, "uniform8_center_1clip"),
    ],
)
def test_a_file_gets_the_first_protocol_that_fits(
    model: str, frames: int, size: int, protocol: str, small: Contract
) -> None:
    assert choose(model, contract=file_of(small, model, frames, size)).protocol == protocol


@pytest.mark.parametrize(
    ("model", "frames", "size", "protocol", "words"),
    [
        (
            "tsm_r50_sthv2_8f_mit",
            16,
            224,
            "efficient",
            "takes 16 frames of 224 px, .*gives 8 of 224.*--frames 8 --size",
        ),
        ("tsm_r50_sthv2_8f_mit", 8, 224, "accurate", "takes 8 frames of 224 px, .*gives 8 of 256.*--size 256"),
        ("tsm_r50_sthv2_8f_mit", 4, 224, None, "takes 4 frames of 224 px, protocol mit_sth_fullres_2clip gives 8 of"),
        ("tsn_r50_k400_3seg", 3, 224, None, "gives 25 of 224; .*--protocol efficient --frames 3"),
        ("tsm_mbv2_motion_online", 1, 96, None, "96 px, protocol uniform8_center_1clip gives 8 of 64"),
        # What is measured otherwise is sampled as the model was trained, and of the file's size.
        (
            "i3d_r50_k400",
            8,
            224,
            None,
            "gives 32 of 256; .*--size 256, or .*: --protocol dense_center_1clip --frames 8$",
        ),
        ("tsn_r50_k400_3seg", 3, 128, None, "gives 25 of 224; export with --frames 25 --size 224$"),
        # Whole videos are of any length.
        ("i3d_inception_k400_rgb", 64, 224, None, "gives all of a video; .* --protocol deepmind_test --frames 64$"),
        ("i3d_inception_k400_rgb", 300, 224, None, "gives all of a video; .* --protocol deepmind_test --frames 300$"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    model: str, frames: int, size: int, protocol: str | None, words: str, small: Contract
) -> None:
    with pytest.raises(DataError, match=words) as caught:
        choose(model, protocol, file_of(small, model, frames, size))
    assert str(caught.value).startswith(f"{model}.onnx takes ")
    assert "\n" not in str(caught.value)


def test_a_file_fits_what_was_changed_for_it(small: Contract) -> None:
    model = "tsm_r50_sthv2_8f_mit"
    followed = choose(model, "efficient", file_of(small, model, 4, 224), frames=4)
    assert (followed.frames, followed.name) == (4, "mit_sth_center_1clip with frames 4")


def test_a_file_may_see_the_middle_of_a_whole_video(small: Contract) -> None:
    model = "i3d_inception_k400_rgb"
    followed = choose(model, "deepmind_test", file_of(small, model, 64, 224), frames=64)
    assert (followed.frames, followed.sampling) == (64, "spread")


def test_an_online_file_takes_any_number_of_frames(small: Contract) -> None:
    contract = file_of(small, "tsm_mbv2_motion_online", 1, 64)
    assert choose("tsm_mbv2_motion_online", contract=contract, frames=5).frames == 5
