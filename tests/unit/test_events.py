import pytest
from likeness.trainers.events import EventReader, EventWriter, event_from_line


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "events.jsonl"
    reader = EventReader(path)
    assert reader.new_events() == []
    writer = EventWriter(path)
    writer.emit("step", step=1, loss=0.5)
    writer.emit("notice", text="naïve <b>\nline")
    first, second = reader.new_events()
    assert (first.kind, first.data) == ("step", {"step": 1, "loss": 0.5})
    assert second.data == {"text": "naïve <b>\nline"}
    assert reader.new_events() == []
    writer.close()


def test_a_half_written_line_waits_for_its_end(tmp_path):
    path = tmp_path / "events.jsonl"
    reader = EventReader(path)
    line = b'{"v": 1, "kind": "saved", "time": 1.0, "path": "x"}\n'
    path.write_bytes(line[:20])
    assert reader.new_events() == []
    with open(path, "ab") as file:
        file.write(line[20:])
    assert [event.kind for event in reader.new_events()] == ["saved"]


def test_old_events_can_be_skipped(tmp_path):
    path = tmp_path / "events.jsonl"
    writer = EventWriter(path)
    writer.emit("step", step=1)
    reader = EventReader(path, skip_old=True)
    writer.emit("step", step=2)
    assert [event.data["step"] for event in reader.new_events()] == [2]
    writer.close()


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "3",
        "null",
        "[1]",
        '{"v": 2, "kind": "step", "time": 1}',
        '{"v": 1, "kind": "unheard", "time": 1}',
        '{"v": 1, "kind": "step"}',
        '{"v": 1, "kind": ["step"], "time": 1}',
        '{"v": 1, "kind": "step", "time": "x"}',
        "[" * 100_000,
    ],
)
def test_damaged_and_newer_lines_are_no_events(line):
    assert event_from_line(line) is None


def test_an_unknown_kind_is_not_written(tmp_path):
    writer = EventWriter(tmp_path / "events.jsonl")
    with pytest.raises(ValueError):
        writer.emit("stpe")
    writer.close()
