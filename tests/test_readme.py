import re
from pathlib import Path

import jax
import pytest

from bayesfilt.records import Record, read_record, write_record

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow  # all that it calls is tested in its own room
def test_the_examples_of_the_readme_run_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    demo = Record(groups={"digits-mlp/free": {}}, attributes={"seed": 0})
    write_record(demo, tmp_path / "runs" / "demo")
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict = {"__name__": "readme"}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert "test_accuracy" in capsys.readouterr().out
    assert jax.tree.structure(names["gains"]) == jax.tree.structure(
        names["task"].init_params(names["key"])
    )
    assert names["record"] == read_record("runs/demo") == demo
    with pytest.raises(KeyError):
        names["tree"]["no such group"]


def test_the_readme_names_files_that_exist():
    root = Path(__file__).parents[1]
    mentioned = re.findall(r"`([\w./]+\.(?:md|toml|py)|\w+(?:/\w+)*/)`", README)
    assert mentioned
    assert [name for name in mentioned if not (root / name).exists()] == []
