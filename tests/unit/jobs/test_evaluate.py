"""The table of scores in a narrow terminal."""

from cluster.evaluate.evaluation import DatasetScore
from jobs.evaluate import _print_table


def test_every_data_set_can_be_told_apart_in_80_columns(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    names = ("iiit5k", "svt", "icdar2013", "icdar2015", "svtp", "cute80")
    paths = [f"/data/sets/scene_text_benchmarks/{name}/test" for name in names]
    _print_table({"runs/first": {path: DatasetScore() for path in paths}}, {"runs/first": ", vocabulary en"})
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    first_cells = "".join(line[1:].split("\u2502")[0].strip() for line in lines)
    for name in names:
        assert f"{name}/test" in first_cells
