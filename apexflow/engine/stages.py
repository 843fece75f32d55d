"""The stages of a clip that a card takes part in, each a task of its own for a Dask worker.

====================== ============== =====================================================
stage                  on             makes
====================== ============== =====================================================
`read_template_frame`  a CPU worker   the frame in which the face is looked for
`find_face`            a card's       the face, or None where a CPU has to look
`prepare`              a CPU worker   the clip decoded, or read for a card that decodes
`compute`              a card's       crops, flow and maps
`commit`               a CPU worker   an `Answer`, after it has written the clip
====================== ============== =====================================================

The first two are left out where a recipe's face needs no search. No stage but the last writes
into the store, except that a clip has failed. An `Answer` that ends a clip early passes through
the stages that follow. A clip that a card could not do is done from its start by `commit`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from apexflow.engine.cards import CUDA_CARD, OPENER
from apexflow.engine.encoded import LeftToCpuError
from apexflow.engine.faces import Face
from apexflow.engine.frames import Image
from apexflow.engine.memory import keep_freed_memory
from apexflow.engine.prepared import PreparedClip, prepare_clip
from apexflow.engine.process import CPU, ClipResult, plan_clip, read_template
from apexflow.engine.recipe import Recipe
from apexflow.engine.task import (
    Outcome,
    Task,
    attempt,
    commit_result,
    finished_outcome,
    run_task,
    unexpected,
)
from apexflow.engine.worker import Answer, refusal, time_limit

if TYPE_CHECKING:
    from apexflow.engine.recipe import Face as FaceOptions


ON_CARD = ("find_face-", "compute-")
"""How Dask's keys of the stages begin that run on a card's worker."""

Found = tuple[Face, str]
"""A face, and what found it."""


class Card(Protocol):
    """A card, opened in the one process that uses it."""

    @property
    def name(self) -> str:
        """What the store says has computed a clip."""

    @property
    def broken(self) -> bool:
        """Whether an error has left the card unusable to this process."""

    def find_face(self, image: Image, options: FaceOptions) -> Face | None:
        """Return the face; None when the CPU has to decide."""

    def compute(self, prepared: PreparedClip, recipe: Recipe) -> ClipResult:
        """Align a clip, compute its flow and its maps."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What every stage of a run is told.

    Attributes
    ----------
    versions : dict of str to str
        What a worker must have.
    clip_timeout : float
        Seconds until a stage that has not finished is ended, with its worker; 0 waits for ever.
    gpu_decode : bool
        Whether cards decode JPEG files.
    """

    versions: dict[str, str]
    clip_timeout: float
    gpu_decode: bool = False


@dataclass(frozen=True, slots=True)
class Computed:
    """What a card has made of a clip, or why it could not.

    Attributes
    ----------
    worker, address : str
        The card's worker.
    result : ClipResult, optional
    failure : str
        Why there is none, where the card is to blame.
    broken : bool
        Whether the worker can use its card no more.
    """

    worker: str
    address: str
    result: ClipResult | None = None
    failure: str = ""
    broken: bool = False


def read_template_frame(task: Task, limits: Limits) -> Image | Answer:
    """Decode the frame in which a card is to look for the face."""
    if refused := refusal(limits.versions):
        return refused
    with time_limit(limits.clip_timeout):
        if done := finished_outcome(task):
            return Answer((done,))
        read = attempt(task, lambda: _template_frame(task))
        return Answer((read,)) if isinstance(read, Outcome) else read


def find_face(task: Task, frame: Image | Answer, limits: Limits) -> Found | Answer | None:
    """Look for the face; what goes wrong is left to the CPU to find out."""
    if isinstance(frame, Answer):
        return frame
    if refused := refusal(limits.versions):
        return refused
    try:
        card = open_card()
        with time_limit(limits.clip_timeout):
            face = card.find_face(frame, task.recipe.face)
    except Exception:
        return None
    return None if face is None else (face, card.name)


def prepare(task: Task, found: Found | Answer | None, limits: Limits) -> PreparedClip | Answer:
    """Decode a clip for a card; one that is too long to be held at once is done here."""
    if isinstance(found, Answer):
        return found
    if refused := refusal(limits.versions):
        return refused
    keep_freed_memory()
    face, device = found or (None, CPU)
    with time_limit(limits.clip_timeout):
        if done := finished_outcome(task):
            return Answer((done,))
        made = attempt(
            task,
            lambda: prepare_clip(
                task.clip,
                task.recipe,
                face=face,
                face_device=device,
                encoded=limits.gpu_decode,
            ),
        )
        if isinstance(made, PreparedClip):
            return made
        return Answer((made or run_task(task),))


def compute(task: Task, prepared: PreparedClip | Answer, limits: Limits) -> Computed | Answer:
    """Compute a clip on this worker's card."""
    if isinstance(prepared, Answer):
        return prepared
    if refused := refusal(limits.versions):
        return refused
    from distributed import get_worker

    worker = get_worker()
    made = Computed(str(worker.name), worker.address)
    card = None
    try:
        card = open_card()
        with time_limit(limits.clip_timeout):
            return replace(made, result=card.compute(prepared, task.recipe))
    except LeftToCpuError:
        return made
    except Exception as error:  # whatever it is, the CPU can do the clip
        broken = card is not None and card.broken
        return replace(made, failure=unexpected(error), broken=broken)


def commit(task: Task, computed: Computed | Answer, limits: Limits) -> Answer:
    """Write a clip into the store, and do it on the CPU where a card could not."""
    if isinstance(computed, Answer):
        return computed
    if refused := refusal(limits.versions):
        return refused
    with time_limit(limits.clip_timeout):
        outcome = finished_outcome(task)
        if outcome is None:
            result = computed.result
            outcome = run_task(task) if result is None else commit_result(task, result)
    return Answer(
        (outcome,),
        worker=computed.address,
        card=computed.worker,
        card_failure=computed.failure,
        card_broken=computed.broken,
    )


def open_card() -> Card:
    """Return this worker's card, opened at its first use."""
    return _opened(os.environ.get(OPENER, CUDA_CARD))


def end_worker() -> None:
    """End the worker's process; its guard starts another."""
    os._exit(1)


@cache
def _opened(opener: str) -> Card:
    module, _, function = opener.partition(":")
    card: Card = getattr(import_module(module), function)()
    return card


def _template_frame(task: Task) -> Image:
    source, plan = plan_clip(task.clip, task.recipe)
    return read_template(source, plan, task.recipe)
