"""What rows were taught with, by the runs that made their adapters."""

from types import SimpleNamespace

from likeness.comparison import taught
from likeness.comparison.matrix import Variant, plan
from likeness.comparison.prompts import prompt_set_from_text
from likeness.trainers.base_file import digest_of
from likeness.trainers.runs import RunFolder


def test_a_file_on_the_way_is_known_by_its_digest_and_is_not_read_for_that(tmp_path, monkeypatch):
    run, cache = tmp_path / "runs" / "anna-lora-r4-01234567", tmp_path / "cache"
    run.mkdir(parents=True)
    whole = tmp_path / f"{run.name}.safetensors"
    drawn, other = (tmp_path / f"{run.name}-step{n:06d}.safetensors" for n in (100, 200))
    for file in (whole, drawn, other):
        file.write_bytes(file.name.encode())
    result = SimpleNamespace(adapter=whole)
    monkeypatch.setattr(RunFolder, "result", lambda self: result)
    monkeypatch.setattr(taught, "read_metadata", lambda path: path.name)
    digests = {file: digest_of(file, cache) for file in (whole, drawn)}
    rows = [Variant(name=f"r{n}", adapter=digest) for n, digest in enumerate(digests.values())]
    rows.append(Variant(name="other", adapter=digest_of(other)))
    asked = []
    real = taught.digest_of
    monkeypatch.setattr(taught, "digest_of", lambda f, c=None: asked.append(f) or real(f, c))
    found = taught.taught_of(plan(rows, prompt_set_from_text("a dog")), tmp_path / "runs", cache)
    assert [one.adapter for one in found] == [whole, drawn, None]
    assert [one.result for one in found] == [result, None, None]
    assert asked == [whole], "a file of gigabytes that nobody drew is not hashed"
    assert found[1].info == drawn.name
