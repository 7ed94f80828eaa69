"""TensorBoard event files, written record by record.

`SummaryWriter` writes one event for each scalar, through another thread. Here one event holds all values of a step,
which is ten times cheaper. It is in the file when the call returns, so that a killed process loses nothing.
"""

import json
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.text.plugin_data_pb2 import TextPluginData
from tensorboard.summary.writer.record_writer import RecordWriter

from neuralode_exp.tags import charts

PREFIX = "events.out.tfevents."
COMPLETED = "final/completed"


class EventFile:
    """An event file that continues the run's earlier event files.

    Args:
        folder: the run's folder. TensorBoard reads its event files in the order of their names.
        purge_step: TensorBoard discards this step and later ones from earlier files; None: it discards nothing.
        suffix: end of the file's name.
    """

    def __init__(self, folder: Path, *, purge_step: int | None, suffix: str = "") -> None:
        # Seconds since 1970, or one more than in the last file's name if both start in the same second.
        earlier = [int(path.name[len(PREFIX) :].split(".")[0]) for path in folder.glob(PREFIX + "*")]
        stamp = max([int(time.time()), *(second + 1 for second in earlier)])
        self.path = folder / f"{PREFIX}{stamp:010d}.{socket.gethostname()}{suffix}"
        self._file = RecordWriter(open(self.path, "xb"))  # noqa: SIM115 - closed by close()
        self._write(Event(file_version="brain.Event:2"))
        if purge_step is not None:
            self._write(Event(step=purge_step, session_log=SessionLog(status=SessionLog.START)))

    def add(self, step: int, values: list[Summary.Value]) -> None:
        """Write the values of one step as one event."""
        self._write(Event(step=step, summary=Summary(value=values)))

    def close(self) -> None:
        self._file.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._file.write(event.SerializeToString())
        self._file.flush()


def scalar(tag: str, value: float) -> Summary.Value:
    return Summary.Value(tag=tag, simple_value=value)


def image(tag: str, encoded: bytes, width: int, height: int) -> Summary.Value:
    """Return an encoded PNG or (animated) GIF as a value of the images tab."""
    rgb = 3
    content = Summary.Image(width=width, height=height, colorspace=rgb, encoded_image_string=encoded)
    return Summary.Value(tag=tag, image=content)


def text(tag: str, markdown: str) -> Summary.Value:
    content = TextPluginData(version=0).SerializeToString()
    return _plugin_value(tag, "text", content, markdown.encode())


def layout() -> Summary.Value:
    """Return the layout of the custom-scalars tab."""
    categories: dict[str, layout_pb2.Category] = {}
    for chart, tags in charts().items():
        category = categories.setdefault(chart.category, layout_pb2.Category(title=chart.category))
        category.chart.add(title=chart.title, multiline=layout_pb2.MultilineChartContent(tag=tags))
    serialized = layout_pb2.Layout(category=categories.values()).SerializeToString()
    return _plugin_value("custom_scalars__config__", "custom_scalars", b"", serialized)


def hparams_start(name: str, hparams: Mapping[str, object]) -> list[Summary.Value]:
    """Return the session start record, which is the row `name` of the HParams table with its hyperparameters.

    No experiment record is written, because it would limit the columns to those of one model. Without it TensorBoard
    shows the columns of all runs. The cell of a null stays empty, and lists are shown as JSON.
    """
    cells = {
        key: value if isinstance(value, bool | int | float | str) else json.dumps(value)
        for key, value in hparams.items()
        if value is not None
    }
    return list(hparams_pb(cells, trial_id=name).value)


def hparams_end(succeeded: bool) -> list[Summary.Value]:
    """Return the session end record, which marks the row as a success or a failure.

    TensorBoard filters rows by this mark but does not show it. The scalar `final/completed` shows it in a column.
    """
    end = plugin_data_pb2.SessionEndInfo(
        status=api_pb2.STATUS_SUCCESS if succeeded else api_pb2.STATUS_FAILURE, end_time_secs=time.time()
    )
    content = plugin_data_pb2.HParamsPluginData(session_end_info=end)
    mark = Summary.Value(
        tag=metadata.SESSION_END_INFO_TAG,
        metadata=metadata.create_summary_metadata(content),
        tensor=metadata.NULL_TENSOR,
    )
    return [mark, scalar(COMPLETED, float(succeeded))]


def _plugin_value(tag: str, plugin: str, content: bytes, string: bytes) -> Summary.Value:
    plugin_data = SummaryMetadata.PluginData(plugin_name=plugin, content=content)
    tensor = TensorProto(dtype="DT_STRING", string_val=[string], tensor_shape=TensorShapeProto())
    return Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=plugin_data), tensor=tensor)
