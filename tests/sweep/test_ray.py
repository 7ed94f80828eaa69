"""What comes with the extra [ray]: Ray as a launcher. `make test-extras` installs it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from neuralode_exp.config.launchers import _of_address
from tests.conftest import train
from tests.sweep.conftest import TINY, table

pytestmark = [pytest.mark.extras, pytest.mark.timeout(500)]  # Ray starts a dozen processes


def test_four_jobs_on_a_local_ray(tmp_path: Path) -> None:
    # As a user starts it: Ray's processes look for modules beside the script.
    words = ("-m", *TINY, "seed=0,1,2,3", "hydra/launcher=ray", f"hydra.sweep.dir={tmp_path}/grid")
    ended = train(*words, cwd=tmp_path, timeout=400)
    assert ended.returncode == 0, ended.stderr
    assert [row["status"] for row in table(tmp_path / "grid")] == ["completed"] * 4


@pytest.mark.parametrize("address", ["null", "127.0.0.1:1", "127.0.0.1:99999", "ray://127.0.0.1:1", "nowhere"])
def test_an_address_that_is_no_cluster_is_refused(tmp_path: Path, address: str) -> None:
    words = ("-m", *TINY, "seed=0,1", "hydra/launcher=ray", f"hydra.launcher.ray.init.address={address}")
    ended = train(*words, cwd=tmp_path, timeout=400)
    assert ended.returncode == 2
    assert ended.stderr.startswith("hydra.launcher.ray.init.address must be ")
    assert len(ended.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_where_no_cluster_is_found_no_job_runs(tmp_path: Path) -> None:
    words = ("-m", *TINY, "seed=0,1", "hydra/launcher=ray", "hydra.launcher.ray.init.address=auto")
    ended = train(*words, f"hydra.sweep.dir={tmp_path}/grid", cwd=tmp_path, timeout=400)
    assert ended.returncode == 1
    assert [row["status"] for row in table(tmp_path / "grid")] == ["not started"] * 2
    assert "ConnectionError" in table(tmp_path / "grid")[0]["reason"]


def test_jobs_run_on_a_cluster_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    ray = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--include-dashboard=false"]
    ray += [f"--port={address.rpartition(':')[2]}", "--node-ip-address=127.0.0.1", "--num-cpus=2"]
    # With a token at hand `ray start` wants it from everyone, but who connects sends it only where this says so.
    monkeypatch.setenv("RAY_AUTH_TOKEN", 64 * "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with subprocess.Popen(ray, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as cluster:
        try:
            end = time.monotonic() + 120
            while answer := list(_of_address(address)):
                assert time.monotonic() < end, answer
                time.sleep(0.5)
            words = ("-m", *TINY, "seed=0,1", "hydra/launcher=ray", f"hydra.launcher.ray.init.address={address}")
            ended = train(*words, f"hydra.sweep.dir={tmp_path}/grid", cwd=tmp_path, timeout=400)
            assert ended.returncode == 0, ended.stderr
            assert [row["status"] for row in table(tmp_path / "grid")] == ["completed"] * 2
        finally:
            cluster.terminate()
