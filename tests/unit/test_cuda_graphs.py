"""The logic around CUDA graphs, with a recorder that repeats the work without them."""

import gc
import weakref
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from likeness.trainers import cuda_graphs
from likeness.trainers.batches import Batch
from likeness.trainers.cuda_graphs import WARMUP_CALLS, GraphedCallable


class Repeater:
    """Records by keeping the work; like a graph it reads and fills the same tensors each time."""

    def __init__(self, failure=None):
        self.recorded = self.replayed = 0
        self.failure = failure

    def capture(self, work, *, save_memory=False):
        for _ in range(WARMUP_CALLS):
            work()
        if self.failure:
            raise self.failure
        self.recorded += 1
        output = work()
        self.undo()

        def replay():
            self.replayed += 1
            output.copy_(work())

        return replay, output

    def undo(self):
        """A recording computes nothing; this one did."""


@pytest.fixture
def notes():
    return []


def test_a_recording_is_replayed_with_each_calls_inputs(notes):
    recorder = Repeater()
    double = GraphedCallable(lambda inputs, setting: inputs[0] * 2, recorder, notes.append)
    for value in (1.0, 5.0, -3.0):
        assert double((torch.full((2,), value),)).tolist() == [2 * value] * 2
    assert (recorder.recorded, recorder.replayed, notes) == (1, 2, [])


def test_each_shape_and_setting_has_its_recording(notes):
    recorder = Repeater()
    work = GraphedCallable(lambda inputs, setting: inputs[0] * setting, recorder, notes.append)
    for _ in range(3):
        assert work((torch.ones(2),), 2).tolist() == [2, 2]
        assert work((torch.ones(3),), 2).tolist() == [2, 2, 2]
        assert work((torch.ones(3),), 4).tolist() == [4, 4, 4]
    assert (recorder.recorded, recorder.replayed) == (3, 6)


def test_what_cannot_be_recorded_is_computed_plainly_and_told_once(notes):
    recorder = Repeater(RuntimeError("operation not permitted when stream is capturing\nmore"))
    double = GraphedCallable(lambda inputs, setting: inputs[0] * 2, recorder, notes.append)
    for _ in range(3):
        assert double((torch.ones(1),)).item() == 2
        assert double((torch.ones(2),)).tolist() == [2, 2]
    assert len(notes) == 1
    assert "CUDA graphs are not used" in notes[0] and "stream is capturing" in notes[0]


class Full(Repeater):
    """Beside other graphs there is memory only for what uses theirs."""

    def __init__(self, enough=True):
        super().__init__()
        self.enough, self.tries = enough, []

    def capture(self, work, *, save_memory=False):
        self.tries.append(save_memory)
        if self.recorded and not (save_memory and self.enough):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().capture(work)


def test_graphs_of_a_second_kind_of_batch_that_did_not_fit_beside_the_first_were_all_lost(notes):
    recorder = Full()
    double = GraphedCallable(lambda inputs, setting: inputs[0] * 2, recorder, notes.append)
    for _ in range(3):
        for shape in (1, 2):
            assert double((torch.ones(shape),)).tolist() == [2] * shape
    assert (recorder.recorded, recorder.tries, notes) == (2, [False, False, True], [])


def test_graphs_for_which_no_memory_is_left_are_given_up(notes):
    recorder = Full(enough=False)
    double = GraphedCallable(lambda inputs, setting: inputs[0] * 2, recorder, notes.append)
    for _ in range(3):
        for shape in (1, 2):
            assert double((torch.ones(shape),)).tolist() == [2] * shape
    assert recorder.tries == [False, False, True]
    assert len(notes) == 1 and "out of memory" in notes[0]


class Generator:
    """A generator whose state can only be replaced: a failed recording has locked it."""

    def __init__(self, name):
        self.state = (name,)

    def get_state(self):
        return f"where {self.state[0]} is"

    def set_state(self, place):
        self.state = (self.state[0], place)

    def graphsafe_set_state(self, other):
        self.state = other.state


class Gpu:
    """Stands for what `CudaGraphCapturer` asks of torch.cuda; `end` ends a capture, or raises."""

    def __init__(self, monkeypatch, end):
        self.now, self.waits, self.ended, self.released = "default", [], [], []
        gpu = self

        class Stream:
            def __init__(self, name="side"):
                self.name = name

            def wait_stream(self, other):
                gpu.waits.append((self.name, other.name))

        class Graph:
            replay = None

            def capture_begin(self, *pool, **_):
                assert gpu.now == "side"

            def capture_end(self):
                end()

        @contextmanager
        def stream(one):
            before, gpu.now = gpu.now, one.name
            try:
                yield
            finally:
                gpu.now = before

        fakes = {
            "graph_pool_handle": lambda: (0, 7),
            "Stream": Stream,
            "stream": stream,
            "current_stream": lambda: Stream(gpu.now),
            "current_device": lambda: 0,
            "CUDAGraph": Graph,
            "synchronize": lambda: None,
            "empty_cache": lambda: None,
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda, name, fake)
        monkeypatch.setattr(torch.cuda, "default_generators", (Generator("old"),))
        monkeypatch.setattr(torch, "Generator", Generator)
        ends = lambda *given: self.ended.append(given)  # noqa: E731
        releases = lambda *given: self.released.append(given)  # noqa: E731
        monkeypatch.setattr(torch._C, "_host_emptyCache", lambda: None, raising=False)
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", ends, raising=False)
        monkeypatch.setattr(torch._C, "_cuda_releasePool", releases, raising=False)


def test_a_capture_that_saves_memory_warms_up_in_the_pool_of_the_other_graphs(monkeypatch):
    gpu, calls = Gpu(monkeypatch, lambda: None), []
    begin = lambda *given: calls.append(("begin", gpu.now, *given))  # noqa: E731
    monkeypatch.setattr(torch._C, "_cuda_beginAllocateCurrentStreamToPool", begin, raising=False)

    def work():
        calls.append((gpu.now, len(gpu.ended)))
        return torch.ones(1)

    cuda_graphs.CudaGraphCapturer().capture(work, save_memory=True)
    warm_ups = [("side", 0)] * WARMUP_CALLS
    assert calls == [("begin", "side", 0, (0, 7)), *warm_ups, ("side", 1)]
    assert gpu.ended == gpu.released == [(0, (0, 7))]


def test_a_recording_that_fails_leaves_stream_and_allocator_as_they_were(notes, monkeypatch):
    """The end of a broken capture raises, and torch.cuda.graph undoes nothing then."""

    def end():
        raise RuntimeError("operation failed due to a previous error during capture")

    gpu = Gpu(monkeypatch, end)
    calls = []

    def work(inputs, setting):
        calls.append(gpu.now)
        if len(calls) == 2 + WARMUP_CALLS:
            raise RuntimeError("operation not permitted when stream is capturing")
        return inputs[0] * 2

    double = GraphedCallable(work, cuda_graphs.CudaGraphCapturer(), notes.append)
    assert [double((torch.full((1,), value),)).item() for value in (1.0, 2.0, 3.0)] == [2, 4, 6]
    assert calls == ["default", *["side"] * (WARMUP_CALLS + 1), "default", "default"]
    assert gpu.ended == gpu.released == [(0, (0, 7))]
    assert len(notes) == 1 and "not permitted when stream is capturing" in notes[0]
    assert torch.cuda.default_generators[0].state == ("cuda:0", "where old is")


def test_a_recording_that_is_made_touches_no_allocator(notes, monkeypatch):
    gpu = Gpu(monkeypatch, lambda: None)
    torch.cuda.CUDAGraph.replay = lambda self: None
    output = torch.zeros(1)
    _, recorded = cuda_graphs.CudaGraphCapturer().capture(lambda: output)
    assert recorded is output
    assert gpu.now == "default" and not gpu.ended and not gpu.released
    assert torch.cuda.default_generators[0].state == ("old",)


def test_after_a_warm_up_that_fails_the_plain_call_waits_for_it(notes, monkeypatch):
    """Else both would add to the same gradients at once."""
    gpu = Gpu(monkeypatch, lambda: None)

    def work(inputs, setting):
        if gpu.now == "side":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inputs[0] * 2

    double = GraphedCallable(work, cuda_graphs.CudaGraphCapturer(), notes.append)
    for _ in range(2):
        assert double((torch.ones(1),)).item() == 2
    assert gpu.waits == [("side", "default"), ("default", "side")]
    assert len(notes) == 1


def test_an_error_without_words_is_told_by_its_name(notes):
    double = GraphedCallable(
        lambda inputs, setting: inputs[0], Repeater(RuntimeError()), notes.append
    )
    for _ in range(2):
        double((torch.ones(1),))
    assert "RuntimeError" in notes[0]


def test_a_recorded_unet_that_is_done_with_gives_its_memory_back_at_once(notes):
    """Python looks for cycles only now and then, and the training begins right after."""
    unet = torch.nn.Linear(2, 2)
    unet.device, unet.dtype = torch.device("cpu"), torch.float32
    recorded = cuda_graphs.graphed_unet(unet, notes.append, Repeater())
    gone = weakref.ref(recorded._replayed)
    gc.disable()
    try:
        del recorded
        assert gone() is None
    finally:
        gc.enable()


def test_other_errors_of_the_work_come_out(notes):
    double = GraphedCallable(lambda inputs, setting: inputs[1], Repeater(), notes.append)
    with pytest.raises(IndexError):
        double((torch.ones(1),))


def test_many_kinds_of_batches_were_slow_without_a_word(notes, monkeypatch):
    monkeypatch.setattr(cuda_graphs, "MAX_GRAPHS", 2)
    recorder = Repeater()
    double = GraphedCallable(lambda inputs, setting: inputs[0] * 2, recorder, notes.append)
    for size in (1, 2, 3, 4) * 2:
        assert double((torch.ones(size),)).tolist() == [2.0] * size
    assert recorder.recorded == 2 and len(notes) == 1
    assert "kept for 2 kinds of batches" in notes[0] and "there are 4 so far" in notes[0]


def test_all_kinds_of_batches_of_buckets_with_captions_are_recorded(notes):
    recorder = Repeater()
    double = GraphedCallable(lambda inputs, setting: inputs[0] * 2, recorder, notes.append)
    for size in [*range(1, 39)] * 2:
        double((torch.ones(size),))
    assert (recorder.recorded, notes) == (38, [])


class Learned:
    """A weight, and the work that adds its gradient, as a training step does."""

    def __init__(self):
        self.weight = torch.nn.Parameter(torch.tensor([3.0]))
        self.weight.grad = torch.zeros(1)

    def gradients(self, inputs, setting):
        x, weights = inputs
        loss = (self.weight * x).pow(2) * weights
        loss.sum().backward()
        return loss.detach()

    def static_tensors(self):
        return [self.weight, self.weight.grad]


class Undoing(Repeater):
    def __init__(self, learned):
        super().__init__()
        self.learned = learned

    def capture(self, work, **options):
        self.before = self.learned.weight.grad.clone()
        return super().capture(work, **options)

    def undo(self):
        assert torch.equal(self.learned.weight.grad, self.before), "the warm-up left a trace"


def test_the_warm_up_leaves_no_gradients_and_replays_add_to_them(notes):
    learned = Learned()
    work = GraphedCallable(
        learned.gradients,
        Undoing(learned),
        notes.append,
        static_tensors=learned.static_tensors,
        zeroed_input=1,
    )
    one = torch.ones(1)
    sums = []
    for value in (1, 2, 3):
        assert work((value * one, one)).item() == 9 * value**2
        sums.append(learned.weight.grad.item())
    assert sums == [6, 6 + 24, 6 + 24 + 54]


def test_weights_that_moved_are_recorded_anew_and_then_plain(notes):
    learned = Learned()
    recorder = Undoing(learned)
    work = GraphedCallable(
        learned.gradients,
        recorder,
        notes.append,
        static_tensors=learned.static_tensors,
        zeroed_input=1,
    )
    one = torch.ones(1)
    for value in (3.0, 4.0, 5.0, 6.0):
        learned.weight.data = torch.tensor([value])
        assert work((one, one)).item() == value**2
    assert recorder.recorded == 2
    assert len(notes) == 1 and "keep moving" in notes[0]


def test_a_recorded_unet_draws_the_same_images(notes, monkeypatch):
    """Every timestep and batch size goes into the recording anew."""
    from likeness.trainers.sampler import calculate_sigmas, prepare_noise, sample

    torch.manual_seed(0)

    class UNet(torch.nn.Module):
        device, dtype = torch.device("cpu"), torch.float32

        def __init__(self):
            super().__init__()
            self.mix = torch.nn.Conv2d(4, 4, 1)

        def forward(self, x, timestep, encoder_hidden_states, return_dict=True, **_):
            shift = (
                timestep.float() / 1000 + encoder_hidden_states.mean((1, 2))[:, None, None, None]
            )
            return (self.mix(x).float() * shift,)

    unet, recorder = UNet(), Repeater()
    recorded = cuda_graphs.graphed_unet(unet, notes.append, recorder)
    states = torch.randn(2, 3, 8)

    def drawn(unet, count):
        with torch.autocast("cpu", torch.float16):
            return sample(
                unet, states[:1].expand(count, -1, -1), states[1:],
                prepare_noise(range(count), 16, 16),
                sigmas=calculate_sigmas(4, "karras"), guidance=3.0, solver="dpmpp_2m",
            )  # fmt: skip

    for count in (2, 3):
        assert torch.equal(drawn(recorded, count), drawn(unet, count))
    assert recorder.recorded == 2 and not notes


def test_recordings_that_are_forgotten_make_room_for_others(notes, monkeypatch):
    monkeypatch.setattr(cuda_graphs, "MAX_GRAPHS", 1)
    recorder = Repeater()
    double = GraphedCallable(lambda inputs, setting: inputs[0] * 2, recorder, notes.append)
    for setting in (False, False, True, True):
        if setting and recorder.recorded == 1:
            double.reset()
        assert double((torch.ones(1),), setting).tolist() == [2.0]
    assert (recorder.recorded, notes) == (2, [])


def test_what_was_recorded_with_the_text_encoder_makes_room_when_it_stops_learning(
    notes, monkeypatch
):
    monkeypatch.setattr(cuda_graphs, "MAX_GRAPHS", 1)
    monkeypatch.setattr(
        cuda_graphs, "forward_backward", lambda learner, scaler, batch: batch.weights * 1
    )
    learner, recorder = SimpleNamespace(prompts=SimpleNamespace(embeddings=None)), Repeater()
    compute = cuda_graphs.GraphedForwardBackward(learner, None, [], recorder, notes.append)
    batch = Batch.of(tuple(torch.ones(2) for _ in range(6)), prior_count=1)
    for _ in range(3):
        compute(batch)
    assert recorder.recorded == 1
    learner.prompts.embeddings = torch.ones(1)
    for _ in range(3):
        assert compute(batch).tolist() == [1.0, 1.0]
    assert (recorder.recorded, notes) == (2, [])


def test_a_later_shape_is_recorded_at_its_first_call_for_a_plain_one_may_find_no_memory(notes):
    recorder, plain = Repeater(), []

    def work(inputs, setting):
        plain.append(len(inputs[0]))
        return inputs[0] * 2

    double = GraphedCallable(work, recorder, notes.append)
    for size in (1, 1, 2):
        double((torch.ones(size),))
    assert recorder.recorded == 2 and plain.count(1) == 1 + plain.count(2)


def test_graphs_share_the_pool_of_one_that_lives_and_of_none_that_is_gone(monkeypatch):
    gpu = Gpu(monkeypatch, lambda: None)
    handles = iter([(0, 1), (0, 2)])
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: next(handles))
    used = []

    class Graph(torch.cuda.CUDAGraph):
        def capture_begin(self, pool, **_):
            assert gpu.now == "side"
            self.used = pool
            used.append(pool)

        def pool(self):
            return self.used

        def replay(self):
            pass

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    recorder = cuda_graphs.CudaGraphCapturer()
    kept = [recorder.capture(lambda: torch.ones(1)) for _ in range(2)]
    assert used == [(0, 1), (0, 1)]
    kept.clear()
    gc.collect()
    recorder.capture(lambda: torch.ones(1))
    assert used[-1] == (0, 2)
