"""Synthetic clips of a face whose motion is known exactly.

One public-domain portrait (`skimage.data.astronaut`), or your own pictures, become subjects,
expressions and moving heads in front of a still background. Demo, tests and benchmarks measure
against its truth.

Examples
--------
>>> from apexflow import synthetic
>>> person = synthetic.Subject.random(1, size=(200, 240))
>>> truth = synthetic.ClipTruth.random(person, "surprise", seed=1, frames=9, amplitude=1.5)
>>> synthetic.render(truth).shape
(9, 200, 240)
>>> truth.flow().shape  # onset to apex, in pixels of the frame
(200, 240, 2)
"""

from apexflow.synthetic.clip import BLINK, HEAD, ClipTruth, crop_matrix, expose, render, take
from apexflow.synthetic.expressions import EXPRESSIONS, Expression, Part
from apexflow.synthetic.light import Light
from apexflow.synthetic.long import (
    LongEvent,
    LongTruth,
    without_expressions,
    write_long_table,
    write_long_video,
)
from apexflow.synthetic.measure import endpoint_error, false_motion, shift_error
from apexflow.synthetic.motion import Motion
from apexflow.synthetic.portrait import LANDMARKS, Portrait, Subject, paint
from apexflow.synthetic.samm import (
    plan_samm,
    samm_name,
    write_clips,
    write_samm,
    write_table,
)
from apexflow.synthetic.write import frame_name, write_frames, write_video

__all__ = [
    "BLINK",
    "EXPRESSIONS",
    "HEAD",
    "LANDMARKS",
    "ClipTruth",
    "Expression",
    "Light",
    "LongEvent",
    "LongTruth",
    "Motion",
    "Part",
    "Portrait",
    "Subject",
    "crop_matrix",
    "endpoint_error",
    "expose",
    "false_motion",
    "frame_name",
    "paint",
    "plan_samm",
    "render",
    "samm_name",
    "shift_error",
    "take",
    "without_expressions",
    "write_clips",
    "write_frames",
    "write_long_table",
    "write_long_video",
    "write_samm",
    "write_table",
    "write_video",
]
