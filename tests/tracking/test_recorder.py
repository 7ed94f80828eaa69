import io
import math
import signal
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from tensorboard import context
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins import base_plugin
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

from neuralode_exp.tracking.metrics import read_metrics
from neuralode_exp.tracking.recorder import Recorder

ALL_STATUSES = [api_pb2.STATUS_UNKNOWN, api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE, api_pb2.STATUS_RUNNING]


def event_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("events.out.tfevents.*"))


def curve(folder: Path, tag: str) -> tuple[list[int], list[float]]:
    """The curve that TensorBoard draws."""
    events = EventAccumulator(str(folder)).Reload().Scalars(tag)
    return [event.step for event in events], [event.value for event in events]


def hparams_table(root: Path) -> dict[str, tuple[dict[str, object], int, dict[str, float]]]:
    """Rows of the HParams tab, from its own backend: run -> (hyperparameters, status, metrics)."""
    runs = EventMultiplexer().AddRunsFromDirectory(str(root)).Reload()
    backend = backend_context.Context(base_plugin.TBContext(data_provider=MultiplexerDataProvider(runs, str(root))))
    every_row = api_pb2.ListSessionGroupsRequest(
        start_index=0, slice_size=100, allowed_statuses=ALL_STATUSES, include_metrics=True
    )
    groups = list_session_groups.Handler(context.RequestContext(), backend, "", every_row).run().session_groups
    table = {}
    for group in groups:
        (session,) = group.sessions
        hparams = {key: getattr(cell, cell.WhichOneof("kind")) for key, cell in group.hparams.items()}
        metrics = {metric.name.tag: metric.value for metric in group.metric_values}
        table[session.name] = hparams, session.status, metrics
    return table


def test_csv_has_full_precision_and_tensorboard_the_same_values(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.scalars(1, {"loss/train": 1 / 3, "nfe/forward": 20})
    recorder.scalars(2, {"loss/train": np.float32(0.1), "nfe/forward": 26})
    recorder.close()
    assert (tmp_path / "metrics.csv").read_text() == (
        "step,tag,value\n"
        "1,loss/train,0.3333333333333333\n"
        "1,nfe/forward,20.0\n"
        "2,loss/train,0.10000000149011612\n"
        "2,nfe/forward,26.0\n"
    )
    curves = read_metrics(tmp_path)
    assert curves["loss/train"] == ([1, 2], [1 / 3, float(np.float32(0.1))])
    for tag, (steps, values) in curves.items():
        assert curve(tmp_path, tag) == (steps, [float(np.float32(value)) for value in values])


def test_nonfinite_values_are_recorded_as_they_are(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.scalars(0, {"loss/train": math.inf})
    recorder.scalars(1, {"loss/train": -math.inf})
    recorder.scalars(2, {"loss/train": math.nan})
    recorder.close()
    for values in (read_metrics(tmp_path)["loss/train"][1], curve(tmp_path, "loss/train")[1]):
        assert values[:2] == [math.inf, -math.inf]
        assert math.isnan(values[2])


def test_run_without_metrics_has_none(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == {}
    Recorder(tmp_path).close()
    assert read_metrics(tmp_path) == {}


def test_resume_continues_one_curve(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    for step in range(0, 100, 10):
        recorder.scalars(step, {"loss/train": step, "error/validation": step + 0.5})
    recorder.close()
    # What a process killed while it writes leaves: a row and a record without their ends.
    csv, (events,) = tmp_path / "metrics.csv", event_files(tmp_path)
    csv.write_text(csv.read_text()[:-3])
    events.write_bytes(events.read_bytes()[:-3])
    assert read_metrics(tmp_path)["error/validation"][0][-1] == 80

    recorder = Recorder(tmp_path, resume_step=50)
    kept = csv.read_text()
    recorder.scalars(55, {"loss/train": -55.0})
    recorder.scalars(100, {"loss/train": -100.0})
    recorder.close()

    assert kept.splitlines()[-2:] == ["50,loss/train,50.0", "50,error/validation,50.5"]
    assert csv.read_text() == kept + "55,loss/train,-55.0\n100,loss/train,-100.0\n"
    steps = [0, 10, 20, 30, 40, 50, 55, 100]
    assert curve(tmp_path, "loss/train") == (steps, [0, 10, 20, 30, 40, 50, -55, -100])
    assert curve(tmp_path, "error/validation") == (steps[:6], [step + 0.5 for step in steps[:6]])
    assert not list(tmp_path.glob("*.tmp"))


def test_resume_many_times_within_a_second_keeps_the_order(tmp_path: Path) -> None:
    for start in range(12):
        recorder = Recorder(tmp_path, resume_step=start - 1 if start else None)
        recorder.scalars(start, {"loss/train": start})
        recorder.scalars(start + 1, {"loss/train": -1.0})  # lost: the next one resumes before it
        recorder.close()
    expected = [*range(12), 12], [*range(12), -1.0]
    assert curve(tmp_path, "loss/train") == expected
    assert read_metrics(tmp_path)["loss/train"] == expected
    assert len(event_files(tmp_path)) == 12


def test_start_over_in_the_same_folder_voids_what_was_there(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        recorder = Recorder(tmp_path)
        recorder.scalars(0, {"loss/train": value})
        recorder.close()
    assert curve(tmp_path, "loss/train") == read_metrics(tmp_path)["loss/train"] == ([0], [2.0])


def test_killed_process_loses_nothing_that_it_recorded(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from neuralode_exp.tracking.recorder import Recorder\n"
        "recorder = Recorder(sys.argv[1])\n"
        "for step in range(5): recorder.scalars(step, {'loss/train': step})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, tmp_path]).returncode == -signal.SIGKILL
    expected = [0, 1, 2, 3, 4], [0.0, 1.0, 2.0, 3.0, 4.0]
    assert curve(tmp_path, "loss/train") == read_metrics(tmp_path)["loss/train"] == expected


@pytest.mark.parametrize("make", [plt.figure, Figure])
def test_figure_is_recorded_saved_and_closed(tmp_path: Path, make: type[Figure]) -> None:
    recorder = Recorder(tmp_path)
    figure = make(figsize=(2, 1), dpi=100)
    figure.add_subplot().plot([0, 1], [1, 0])
    recorder.figure(7, "dynamics/phase", figure)
    recorder.close()
    assert plt.get_fignums() == []
    (event,) = EventAccumulator(str(tmp_path)).Reload().Images("dynamics/phase")
    assert (event.step, event.width, event.height) == (7, 200, 100)
    saved = tmp_path / "figures" / "dynamics-phase.png"
    assert saved.read_bytes() == event.encoded_image_string
    with Image.open(saved) as picture:
        assert (picture.format, picture.size) == ("PNG", (200, 100))


def test_gif_keeps_every_frame_and_its_time(tmp_path: Path) -> None:
    frames = [np.full((4, 6, 3), shade, dtype=np.uint8) for shade in (0, 100, 200)]
    recorder = Recorder(tmp_path)
    recorder.gif(3, "flow", frames, frame_seconds=0.25)
    recorder.close()
    (event,) = EventAccumulator(str(tmp_path)).Reload().Images("flow")
    assert (event.step, event.width, event.height) == (3, 6, 4)
    assert event.encoded_image_string == (tmp_path / "figures" / "flow.gif").read_bytes()
    with Image.open(io.BytesIO(event.encoded_image_string)) as animation:
        assert (animation.format, animation.n_frames) == ("GIF", 3)
        assert animation.info["loop"] == 0  # for ever
        for index, shade in enumerate((0, 100, 200)):
            animation.seek(index)
            assert animation.info["duration"] == 250
            assert animation.convert("RGB").getpixel((2, 2)) == (shade,) * 3


def test_text_and_layout_are_recorded_once(tmp_path: Path) -> None:
    for resume_step in (None, 3):
        recorder = Recorder(tmp_path, resume_step=resume_step)
        recorder.text("config", "    seed: 0")
        recorder.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    (text,) = events.Tensors("config")
    assert text.tensor_proto.string_val[0] == b"    seed: 0"
    (layout,) = events.Tensors("custom_scalars__config__")
    categories = layout_pb2.Layout.FromString(layout.tensor_proto.string_val[0]).category
    titles = ["loss and error", "function evaluations", "memory", "solver"]
    assert [category.title for category in categories] == titles


def test_hparams_table_has_a_row_a_run_and_the_columns_of_all_models(tmp_path: Path) -> None:
    configs = {
        "resnet": {"model.name": "resnet", "model.blocks": 6, "trainer.clip": None, "figures": True},
        "odenet": {"model.name": "odenet", "solver.rtol": 1e-3, "dataset.matrix": [[0, -1], [1, 0]]},
        "failed": {"model.name": "odenet", "solver.rtol": 1e-3, "dataset.matrix": [[0, -1], [1, 0]]},
        "running": {"model.name": "stem"},
    }
    for name, config in configs.items():
        recorder = Recorder(tmp_path / name)
        recorder.hparams_start("odenet-circle", config)
        recorder.scalars(10, {"final/error": 1.5})
        if name != "running":
            recorder.hparams_end("failed" if name == "failed" else "completed")
        recorder.close()
    odenet = {"model.name": "odenet", "solver.rtol": 1e-3, "dataset.matrix": "[[0, -1], [1, 0]]"}
    final = {"final/error": 1.5}
    completed = final | {"final/completed": 1.0}
    assert hparams_table(tmp_path) == {
        "resnet": (
            {"model.name": "resnet", "model.blocks": 6, "figures": True},
            api_pb2.STATUS_SUCCESS,
            completed,
        ),
        "odenet": (odenet, api_pb2.STATUS_SUCCESS, completed),
        "failed": (odenet, api_pb2.STATUS_FAILURE, final | {"final/completed": 0.0}),
        "running": ({"model.name": "stem"}, api_pb2.STATUS_UNKNOWN, final),
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(configs)  # no folders but the runs'


def test_resume_takes_back_the_mark_of_failure(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    statuses = []
    for resume_step, end in ((None, "failed"), (4, "interrupted"), (8, "completed")):
        recorder = Recorder(folder, resume_step=resume_step)
        recorder.hparams_start("odenet-circle", {"seed": 0})
        recorder.scalars(5, {"loss/train": 1.0})
        before = hparams_table(tmp_path)["run"][1]
        recorder.hparams_end(end)
        recorder.close()
        statuses += [before, hparams_table(tmp_path)["run"][1]]
    unknown, success, failure = ALL_STATUSES[:3]
    assert statuses == [unknown, failure, unknown, failure, unknown, success]
    assert hparams_table(tmp_path)["run"][2]["final/completed"] == 1.0
