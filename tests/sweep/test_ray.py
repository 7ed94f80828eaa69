"""What comes with the extra [ray]: Ray as a launcher. `make test-extras` installs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import train
from tests.sweep.conftest import TINY, table

pytestmark = pytest.mark.extras


def test_four_jobs_on_a_local_ray(tmp_path: Path) -> None:
    # As a user starts it: Ray's processes look for modules beside the script.
    words = ("-m", *TINY, "seed=0,1,2,3", "hydra/launcher=ray", f"hydra.sweep.dir={tmp_path}/grid")
    ended = train(*words, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert [row["status"] for row in table(tmp_path / "grid")] == ["completed"] * 4
