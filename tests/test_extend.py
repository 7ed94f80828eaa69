"""Registration: files are imported once for each content, and what they get wrong is told with its line."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from neuralode_exp import user_files
from neuralode_exp.registry import ExtensionError

FIELD = """
from __future__ import annotations
from neuralode_exp.extend import field

@field("{name}")
class Damped:
    def __init__(self, dim: int, *, width: int = 64, damping: float = 0.1): ...
    def forward(self, t, z): ...
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_fields.py"
    path.write_text(FIELD.format(name="damped"))
    return path


def test_a_name_stands_for_a_class_with_its_options(file: Path) -> None:
    [loaded] = user_files.load([str(file)])
    assert loaded.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    entry = user_files.find("field", "damped", [str(file)])
    assert entry is not None
    assert {name: (option.annotation, option.default) for name, option in entry.options.items()} == {
        "width": (int, 64),
        "damping": (float, 0.1),
    }
    assert entry.place == "my_fields.py, line 5"
    assert user_files.find("system", "damped", [str(file)]) is None
    assert user_files.find("field", "damped", []) is None


def test_a_file_is_imported_again_only_when_it_has_changed(file: Path) -> None:
    [first] = user_files.load([str(file)])
    assert user_files.load([str(file)]) == [first]
    file.write_text(FIELD.format(name="other"))
    user_files.load([str(file)])
    assert [entry.name for entry in user_files.entries("field", [str(file)])] == ["other"]


def test_looking_a_file_up_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "lab"
    package.mkdir()
    for path in (tmp_path / "plain.py", package / "__init__.py", package / "fields.py"):
        path.write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    for word, path in {"plain": "plain.py", "lab.fields": "lab/fields.py", "lab": "lab/__init__.py"}.items():
        assert user_files.locate(word) == tmp_path / path
        assert user_files.sha256(word) == hashlib.sha256((tmp_path / path).read_bytes()).hexdigest()
        assert user_files.loaded([word]) is None
    assert user_files.locate("lab.nothing") is user_files.sha256("lab.nothing") is None


def test_a_module_is_imported_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "lab_of_two"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "names.py").write_text("NAME = 'relative'")
    (package / "fields.py").write_text("from .names import NAME\n" + FIELD.format(name="x").replace('"x"', "NAME", 1)
                                       .replace("from __future__ import annotations\n", ""))  # fmt: skip
    monkeypatch.syspath_prepend(tmp_path)
    user_files.load(["lab_of_two.fields"])
    assert user_files.find("field", "relative", ["lab_of_two.fields"]) is not None
    sys.modules.pop("lab_of_two.fields")


WRONG = {
    "x = 1\ny = 2 +": "cannot be imported, got wrong.py, line 2: SyntaxError: invalid syntax",
    "def f():\n    return nothing\n\nf()": "got wrong.py, line 2: NameError: name 'nothing' is not defined",
    "raise SystemExit(3)": "got wrong.py, line 1: SystemExit: 3",
    "import no_such_module_at_all": "line 1: ModuleNotFoundError: No module named 'no_such_module_at_all'",
    "from neuralode_exp.extend import field\n@field('a')\nclass A:\n    pass": (
        "must register a class with forward, got a (wrong.py, line 2)"
    ),
    "from neuralode_exp.extend import field\n@field('a')\nclass A:\n    def forward(self, z): ...": (
        "must take (self, t, z), got (self, z) in a.forward (wrong.py, line 2)"
    ),
    "from neuralode_exp.extend import field\n@field('a')\nclass A:\n"
    "    def __init__(self, dim, width=3): ...\n    def forward(self, t, z): ...": (
        "must take (dim, *, OPTION=...), got (dim, width) in a (wrong.py, line 2); options follow a *"
    ),
    "from neuralode_exp.extend import system\n@system('a', dim=2)\ndef a(z, **kwargs): ...": (
        "must take (t, z, *, OPTION=...), got (z, **kwargs) in a (wrong.py, line 2)"
    ),
    "from neuralode_exp.extend import density\n@density('a')\nclass A: ...": "must register a class with sample, got a",
    "from neuralode_exp.extend import metric\n@metric('a')\ndef a(model, data, *, k: Nothing = 1): ...": (
        "must have annotations that exist, got name 'Nothing' is not defined in a"
    ),
}


@pytest.mark.parametrize("source", WRONG)
def test_what_a_file_gets_wrong_is_told_with_its_line(source: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(source)
    with pytest.raises(ExtensionError) as caught:
        user_files.load([str(tmp_path / "wrong.py")])
    assert WRONG[source] in str(caught.value)
    assert "\n" not in str(caught.value)
