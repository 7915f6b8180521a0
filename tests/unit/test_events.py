import pytest
from likeness.trainers.events import EventReader, EventWriter, event_from_line


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "events.jsonl"
    reader = EventReader(path)
    assert reader.new_events() == []
    writer = EventWriter(path)
    writer.emit("validation", step=1, loss=0.5)
    writer.emit("notice", text="naïve <b>\nline")
    first, second = reader.new_events()
    assert (first.kind, first.data) == ("validation", {"step": 1, "loss": 0.5})
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
    writer.emit("stopped", step=1)
    reader = EventReader(path, skip_existing=True)
    writer.emit("stopped", step=2)
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
        '{"v": 1, "kind": "stopped", "time": "x", "step": 1}',
        '{"v": 1, "kind": "stopped", "time": 1}',
        '{"v": 1, "kind": "stopped", "time": 1, "step": "1"}',
        '{"v": 1, "kind": "stopped", "time": 1, "step": -1}',
        '{"v": 1, "kind": "finished", "time": 1, "seconds": NaN}',
        '{"v": 1, "kind": "finished", "time": 1, "seconds": 1e999}',
        '{"v": 1, "kind": "finished", "time": 1, "seconds": 1%s}' % (400 * "0"),
        '{"v": 1, "kind": "finished", "time": 1%s, "seconds": 1}' % (400 * "0"),
        '{"v": 1, "kind": "preview", "time": 1, "step": 1, "index": 0, "path": "../x.png"}',
        '{"v": 1, "kind": "preview", "time": 1, "step": 1, "index": 0, "path": "/etc/x"}',
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


def test_the_first_event_after_a_kill_is_not_glued_to_half_a_line(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"v": 1, "kind": "sto')
    reader = EventReader(path, skip_existing=True)
    writer = EventWriter(path)
    writer.emit("stopped", step=3)
    writer.close()
    assert [event.data["step"] for event in reader.new_events()] == [3]
    assert len(EventReader(path).new_events()) == 1


def test_a_large_file_is_read_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("likeness.trainers.events.BLOCK_SIZE", 200)
    path = tmp_path / "events.jsonl"
    writer = EventWriter(path)
    for step in range(10):
        writer.emit("stopped", step=step)
    with open(path, "ab") as file:
        file.write(b"x" * 1000 + b"\n")
    writer.emit("stopped", step=10)
    writer.close()
    reader = EventReader(path)
    assert 0 < len(reader.read_block()) < 10
    assert [e.data["step"] for e in EventReader(path).new_events()] == list(range(11))
    again = EventReader(path, start=reader.offset)
    assert again.new_events()[-1].data["step"] == 10
