"""What `check=true` says of a table before its `ok`."""

from pathlib import Path

from neuralode_exp.config.preflight import preflight


def test_a_check_says_how_a_table_is_read_and_what_is_odd(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd.csv").write_text(
        "id,t,x\n" + "".join(f"{k},{k * k},{-999 if k == 5 else k % 4}\n" for k in range(20))
    )
    words = ["dataset=csv", "dataset.path=odd.csv", "dataset.states=[x]", "check=true"]
    read, odd, ok = str(preflight(words).answer).splitlines()
    assert read.startswith('read 20 rows of odd.csv: time "t", states "x", 1 trajectory; left out: id; held out: ')
    assert odd.startswith('"x" has -999 far off its other values; ')
    assert ok.startswith("ok: model=odenet dataset=csv ")
    ok, *lines = str(preflight(["-m", *words, "seed=0,1"]).answer).splitlines()
    assert (ok.partition(",")[0], lines[:2]) == ("ok: 2 cells", [read, odd])
    read, counts, odd, ok = str(preflight(["dataset=points", "dataset.path=odd.csv", "check=true"]).answer).splitlines()
    assert (read, ok[:3]) == ('read 20 points of odd.csv: "id", "t", "x"', "ok:")
    assert '"id" of odd.csv counts the rows' in counts
