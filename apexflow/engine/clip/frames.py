"""The pixels of a clip, decoded in order, all of one size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from apexflow.datasets.sources import FolderFrames, FrameSource, Image
from apexflow.engine.clip.clock import Clock
from apexflow.engine.clip.plan import ClipPlan
from apexflow.errors import ClipError


class ClipFrames:
    """The frames that a plan names, each decoded once when they are read in ascending order.

    Parameters
    ----------
    source : FrameSource
    plan : ClipPlan
    color : bool
        Whether frames are wanted in colour, as the recipe's alignment says.
    clock : Clock
        Of the clip; decoding is the stage "decode".

    Attributes
    ----------
    template : uint8 (H, W) or (H, W, 3)
        The template frame, decoded first.
    value_bits : int or None
        Bits of a sample that images of more than 8 were scaled by, the same for all frames of
        the clip; None where none has more.
    """

    def __init__(self, source: FrameSource, plan: ClipPlan, clock: Clock, *, color: bool) -> None:
        self.source, self.plan, self.color = source, plan, color
        self.clock = clock
        with clock("decode"):
            (self.template,) = source.read([plan.template], color=color)
        self._waiting: list[int] = []
        self._decoded: Iterator[Image] = iter(())

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of every frame."""
        height, width = self.template.shape[:2]
        return height, width

    @property
    def value_bits(self) -> int | None:
        return self.source.value_bits if isinstance(self.source, FolderFrames) else None

    @property
    def files(self) -> tuple[str, ...]:
        """The name of the image file of each frame."""
        return tuple(self.source.file_name(number) for number in self.plan.numbers)

    def one(self, number: int) -> Image:
        """Return a single frame, out of order: for looking, not for a way through the clip."""
        with self.clock("decode"):
            (image,) = self.source.read([number], color=self.color)
        return image

    def take_template(self, number: int) -> None:
        """Make another frame the template, here and in the plan."""
        self.template = self.one(number)
        self.plan = replace(self.plan, template=number)
        self._waiting.clear()

    def read(self, numbers: Sequence[int]) -> Iterator[Image]:
        """Yield frames in ascending order of number.

        A video is decoded from its start where a frame is asked for that has passed.

        Raises
        ------
        ClipError
            For a frame that cannot be decoded, or has another size than the template frame.
        """
        for number in numbers:
            with self.clock("decode"):
                frame = self.template if number == self.plan.template else self._next(number)
            if frame.shape != self.template.shape:
                raise ClipError(
                    f"frame {number} is {_size(frame)}, the template frame "
                    f"{self.plan.template} {_size(self.template)}: one size is needed"
                )
            yield frame

    def _next(self, number: int) -> Image:
        if not self._waiting or self._waiting[0] != number:
            self._waiting = [
                n for n in self.plan.numbers if n >= number and n != self.plan.template
            ]
            self._decoded = self.source.read(tuple(self._waiting), color=self.color)
        self._waiting.pop(0)
        return next(self._decoded)


def _size(image: Image) -> str:
    return "x".join(map(str, (image.shape[1], image.shape[0], *image.shape[2:])))
