"""One clip's way: frames in, aligned crops, flow and maps out. No scheduler, no store.

The files stand in the order of the way: `plan` with `rate` and `temporal`, `frames`, `faces`,
`align`, `apex`, `magnify`, `interpolate`, `light`, `flow`, `quality`, `result`; `backend` says
where a step computes, `cuda` is the GPU's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apexflow.catalog import Clip
from apexflow.engine.clip.align import align_frames
from apexflow.engine.clip.backend import CPU, Backend, Steps
from apexflow.engine.clip.clock import Clock
from apexflow.engine.clip.faces import FaceDetector, locate_in_clip
from apexflow.engine.clip.flow import flow_of_regions, flow_of_windows, make_all_maps
from apexflow.engine.clip.frames import ClipFrames
from apexflow.engine.clip.interpolate import interpolate_crops
from apexflow.engine.clip.light import normalize_frames
from apexflow.engine.clip.magnify import magnify_crops
from apexflow.engine.clip.plan import plan_clip, with_apex
from apexflow.engine.clip.quality import judge_clip
from apexflow.engine.clip.result import ClipResult

if TYPE_CHECKING:
    from apexflow.engine.recipe import Recipe

__all__ = ["CPU", "ClipResult", "process_clip"]


def process_clip(
    clip: Clip,
    recipe: Recipe,
    backend: Backend = CPU,
    *,
    detector: FaceDetector | None = None,
) -> ClipResult:
    """Take one clip from its frames to flow and maps.

    Parameters
    ----------
    clip : Clip
    recipe : Recipe
    backend : Backend, default CPU
        Where the steps compute after a frame is decoded and the face found. A step that fails
        on a GPU is done again on the CPU; the result says what computed it.
    detector : FaceDetector, optional
        In place of the one that the recipe names.

    Returns
    -------
    ClipResult
        Crops, poses, flow, maps, flags and seconds.

    Raises
    ------
    ClipError
        With the reason when the clip cannot be used: frames missing or unreadable, annotation
        out of order, no face, key frames that certainly do not show it, a frame of another size.
    """
    clock, steps = Clock(), Steps(backend)
    source, plan = plan_clip(clip, recipe)
    frames = ClipFrames(source, plan, clock, color=recipe.alignment.color)
    with clock("detect"):
        wanted = plan.template
        located = locate_in_clip(frames, clip, recipe, detector)
        plan = frames.plan
    with clock("align"):
        aligned = steps.run(align_frames, frames, located, recipe)
    with clock("flow"):
        plan = with_apex(plan, aligned.crops, recipe)
        magnified = magnify_crops(plan, aligned, recipe)
        interpolated = interpolate_crops(plan, magnified.aligned, recipe)
        images = steps.run(normalize_frames, plan, magnified.aligned, recipe)
        flow, confidence = steps.run(flow_of_windows, plan, images, recipe)
        roi = steps.run(flow_of_regions, plan, images, flow, located, recipe)
    with clock("encode"):
        maps = steps.run(make_all_maps, flow, roi, confidence, located, recipe)
    with clock("quality"):
        quality = judge_clip(plan, located, aligned, magnified, flow, wanted=wanted)
    return ClipResult(
        plan=plan,
        face=located.face,
        box=located.box,
        regions=located.regions,
        aligned=magnified.aligned,
        interpolated=interpolated,
        magnification=magnified.found,
        files=frames.files,
        flow=flow,
        roi=roi,
        maps=maps,
        seconds=clock.seconds,
        device=steps.device,
        quality=quality,
        sample_bits=source.sample_bits,
        confidence=confidence,
        mesh=located.mesh,
    )
