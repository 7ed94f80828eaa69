"""Record scalars, figures, text and hyperparameters of a run, for TensorBoard and as plain files."""

import csv
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neuralode_exp.tracking import events, metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

END_SUFFIX = ".end"


class Recorder:
    """Write a run's scalars to TensorBoard and metrics.csv, its images to TensorBoard and `figures/`.

    When a call returns, its data are with the operating system, so that a process killed later loses nothing. On
    resume, everything recorded after `resume_step` is dropped, so that both show one continuous curve. Opening the
    recorder also removes the mark of success or failure that an earlier end of the run left.

    Args:
        folder: the run's folder, made if missing. No other run may use it.
        resume_step: the step of the checkpoint from which the run resumes; None: the run starts anew.

    Example:
        >>> recorder = Recorder(folder)
        >>> recorder.scalars(100, {"loss/train": 0.25, "nfe/forward": 20.0})
        >>> recorder.close()
    """

    def __init__(self, folder: Path | str, *, resume_step: int | None = None) -> None:
        self.folder = Path(folder)
        self._resumed = resume_step is not None
        self._step = resume_step or 0
        first_step = 0 if resume_step is None else resume_step + 1
        (self.folder / "figures").mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob(f"{events.PREFIX}*{END_SUFFIX}"):
            path.unlink()

        metrics.keep_before(self.folder, first_step)
        self._csv = open(self.folder / metrics.FILE_NAME, "a", newline="", encoding="utf-8")  # noqa: SIM115 - closed by close()
        self._rows = csv.writer(self._csv, lineterminator="\n")
        self._events = events.EventFile(self.folder, purge_step=first_step)
        if not self._resumed:
            self._events.add(0, [events.layout()])

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Record the values of one step by tag. NaN and infinity are recorded as they are.

        metrics.csv has them in full precision, TensorBoard in float32.
        """
        self._step = step
        numbers = {tag: float(value) for tag, value in values.items()}
        self._events.add(step, [events.scalar(tag, value) for tag, value in numbers.items()])
        self._rows.writerows((step, tag, repr(value)) for tag, value in numbers.items())
        self._csv.flush()

    def figure(self, step: int, tag: str, figure: "Figure") -> None:
        """Record a Matplotlib figure as a PNG and close it."""
        encoded = io.BytesIO()
        figure.savefig(encoded, format="png")
        # Only pyplot keeps figures alive. If it is not imported, there is nothing to close.
        if (pyplot := sys.modules.get("matplotlib.pyplot")) is not None:
            pyplot.close(figure)
        self._image(step, tag, encoded.getvalue(), ".png")

    def gif(self, step: int, tag: str, frames: Sequence[np.ndarray], *, frame_seconds: float = 0.1) -> None:
        """Record an animation: frames as uint8 arrays of shape (height, width, 3)."""
        from PIL import Image

        first, *others = (Image.fromarray(frame) for frame in frames)
        encoded = io.BytesIO()
        duration_ms = round(1000 * frame_seconds)
        first.save(encoded, "GIF", save_all=True, append_images=others, duration=duration_ms, loop=0)
        self._image(step, tag, encoded.getvalue(), ".gif")

    def text(self, tag: str, markdown: str) -> None:
        """Record a text about the run. A resumed run does not record it again."""
        if not self._resumed:
            self._events.add(0, [events.text(tag, markdown)])

    def hparams_start(self, name: str, hparams: Mapping[str, object]) -> None:
        """Record the hyperparameters, dotted keys with plain values, as a row of the HParams table.

        A resumed run does not record them again. The row's name includes the folder, because TensorBoard would show
        runs of the same name as repetitions of one run.
        """
        if not self._resumed:
            self._events.add(0, events.hparams_start(f"{name} in {self.folder.absolute()}", hparams))

    def hparams_end(self, status: str) -> None:
        """Mark the row of the HParams table: `completed` is a success, any other status a failure.

        Its column `final/completed` is 1 or 0, and empty for a run that is running or was killed. The mark has a file
        of its own, because TensorBoard keeps the first mark that it reads. A resumed run removes this file.
        """
        mark = events.EventFile(self.folder, purge_step=None, suffix=END_SUFFIX)
        mark.add(self._step, events.hparams_end(status == "completed"))
        mark.close()

    def close(self) -> None:
        self._csv.close()
        self._events.close()

    def _image(self, step: int, tag: str, encoded: bytes, suffix: str) -> None:
        from PIL import Image

        with Image.open(io.BytesIO(encoded)) as picture:
            width, height = picture.size
        self._events.add(step, [events.image(tag, encoded, width, height)])
        (self.folder / "figures" / (tag.replace("/", "-") + suffix)).write_bytes(encoded)
