"""CUDA graphs: work that is recorded once and replayed, without launching its kernels one by one.

A step of SD 1.5 has thousands of small kernels, and a GPU finishes each sooner than Python starts
the next. Forward and backward are recorded together; the optimizer stays outside, because some
optimizers read numbers on the host and bitsandbytes' may move the weights.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Protocol
from weakref import WeakSet

import torch
from torch import Tensor
from torch.nn import Parameter

from .batches import Batch
from .step import Learner, forward_backward

Tensors = tuple[Tensor, ...]
# (inputs, setting) -> output; all that is no tensor, and changes what is computed, is the setting
Work = Callable[[Tensors, Any], Tensor]

WARMUP_CALLS = 3  # calls before the recording, in which libraries choose and prepare their kernels
# Photographs in buckets with captions, at batch 4 to 8, come in 26 to 38 kinds. Each recording
# holds its kernels, inputs and output; the memory of their work is shared.
MAX_GRAPHS = 48


class GraphCapturer(Protocol):
    """Records work without inputs: what `CudaGraphCapturer` does, and a test without a GPU."""

    def capture(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """Returns what repeats the work, and the tensor that each repetition fills."""
        ...


class CudaGraphCapturer:
    """Records CUDA graphs that share one pool of memory; they are replayed one at a time."""

    def __init__(self) -> None:
        self._graphs: WeakSet[torch.cuda.CUDAGraph] = WeakSet()
        self._stream = torch.cuda.Stream()

    def capture(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """Runs `work` WARM_UP times on a stream of its own, then records it.

        Raises RuntimeError where something in it cannot be recorded.
        """
        gc.collect()  # a graph of autograd in a cycle would bind its weights to another stream
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream):
                for _ in range(WARMUP_CALLS):
                    work()
        finally:  # also where it fails: what comes next uses the same gradients
            current.wait_stream(self._stream)
        graph, pool = torch.cuda.CUDAGraph(), self._pool()
        with (
            _clean_up_failed_capture(pool),
            torch.cuda.graph(graph, pool=pool, stream=self._stream),
        ):
            output = work()
        self._graphs.add(graph)
        return graph.replay, output

    def _pool(self) -> Any:
        """That of the graphs there are; a pool whose graphs are all gone cannot be used again."""
        pools = [graph.pool() for graph in self._graphs]
        return pools[0] if pools else torch.cuda.graph_pool_handle()


@contextmanager
def _clean_up_failed_capture(pool: Any) -> Iterator[None]:
    """Mends what PyTorch leaves where the end of a recording raises an error.

    The recording's stream stays the current one, and the generator of random numbers waits for a
    replay and refuses all others. And, before PyTorch's pull request 180395, the allocator takes
    the recording for going on: it then gives back none of the memory that it keeps, not even where
    there is no other, and `empty_cache` raises.
    """
    names = "_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool"  # the older one
    ends = [getattr(torch._C, name) for name in names if hasattr(torch._C, name)]
    with torch.cuda.stream(torch.cuda.current_stream()):  # it is again, behind this
        try:
            yield
        except BaseException:
            device = torch.cuda.current_device()
            with suppress(RuntimeError, TypeError):  # for the allocator it has ended
                for end in ends[:1]:
                    end(device, pool)
                    torch._C._cuda_releasePool(device, pool)
            with suppress(RuntimeError):
                _replace_generator_state(device)
            raise


def _replace_generator_state(device: int) -> None:
    """Puts a new state, at the same place of the same sequence, in place of the generator's."""
    generator, free = torch.cuda.default_generators[device], torch.Generator(f"cuda:{device}")
    free.set_state(generator.get_state())
    generator.graphsafe_set_state(free)


@dataclass(frozen=True)
class _CapturedGraph:
    inputs: Tensors
    output: Tensor
    replay: Callable[[], None]
    addresses: tuple[int, ...]


class GraphedCallable:
    """Calls `work`, recorded for each setting and each shape of its inputs.

    The first call is plain, and makes what a recording will find: the gradients' tensors. Where
    the work cannot be recorded, `notice(text)` says so once and it is plain from then on.
    The returned tensor is filled anew by the next call.

    Args:
        fixed: the tensors that the work reads or writes beside its inputs. One that moved would
            be missed by a recording, so the work is then recorded again, and the second time
            called plainly.
        muted: the place of an input that is zero in the warm-up, so that this leaves no trace:
            the weights of the losses.
    """

    def __init__(
        self,
        work: Work,
        recorder: GraphCapturer,
        notice: Callable[[str], None],
        *,
        static_tensors: Callable[[], Sequence[Tensor]] = tuple,
        zeroed_input: int | None = None,
    ) -> None:
        self._work, self._recorder, self._notice = work, recorder, notice
        self._static_tensors, self._zeroed_input = static_tensors, zeroed_input
        self._captured_graphs: dict[Hashable, _CapturedGraph] = {}
        self._seen_keys: set[Hashable] = set()
        self._is_eager = False
        self._has_moved = False
        self._has_warned = False

    def __call__(self, inputs: Tensors, setting: Hashable = None) -> Tensor:
        recording = None if self._is_eager else self._graph_for(inputs, setting)
        if recording is None:
            return self._work(inputs, setting)
        for buffer, value in zip(recording.inputs, inputs, strict=True):
            buffer.copy_(value, non_blocking=True)
        recording.replay()
        return recording.output

    def reset(self) -> None:
        """Drops all recordings; what comes again is recorded again."""
        self._captured_graphs.clear()

    def _graph_for(self, inputs: Tensors, setting: Hashable) -> _CapturedGraph | None:
        key = (setting, *((tuple(value.shape), value.dtype) for value in inputs))
        if key not in self._seen_keys:
            self._seen_keys.add(key)
            # Beside a recording, which holds a step's memory, a plain call may find none.
            if not self._captured_graphs:
                return None
        addresses = tuple(tensor.data_ptr() for tensor in self._static_tensors())
        known = self._captured_graphs.get(key)
        if known is not None and known.addresses == addresses:
            return known
        if known is not None and not self._invalidate_moved():
            return None
        if len(self._captured_graphs) >= MAX_GRAPHS:
            self._warn_graph_limit()
            return None
        try:
            recording = self._capture(inputs, setting, addresses)
        except RuntimeError as error:  # torch's own, out-of-memory among them
            self._fall_back_to_eager(_root_cause(error))
            return None
        self._captured_graphs[key] = recording
        return recording

    def _capture(
        self, inputs: Tensors, setting: Hashable, addresses: tuple[int, ...]
    ) -> _CapturedGraph:
        buffers = tuple(value.clone() for value in inputs)
        if self._zeroed_input is not None:
            buffers[self._zeroed_input].zero_()
        replay, output = self._recorder.capture(lambda: self._work(buffers, setting))
        return _CapturedGraph(buffers, output, replay, addresses)

    def _invalidate_moved(self) -> bool:
        """Drops all recordings; False, and plain from now on, if it is not the first time."""
        self._captured_graphs.clear()
        if self._has_moved:
            self._fall_back_to_eager("the weights are moved in memory again and again")
        self._has_moved = True
        return not self._is_eager

    def _warn_graph_limit(self) -> None:
        if not self._has_warned:
            self._notice(
                f"CUDA graphs are kept for {MAX_GRAPHS} kinds of batches, and there are "
                f"{len(self._seen_keys)} so far, by their shapes and numbers of prompts: the "
                "others are computed without, and slower. A smaller batch or no buckets "
                "give fewer kinds."
            )
        self._has_warned = True

    def _fall_back_to_eager(self, reason: str) -> None:
        self._is_eager = True
        self._captured_graphs.clear()
        self._notice(f"CUDA graphs are not used, steps are slower: {reason}")


def _root_cause(error: BaseException) -> str:
    """What went wrong first: an error in a recording lets its end fail, too."""
    while error.__context__ is not None:
        error = error.__context__
    return next(iter(str(error).splitlines()), type(error).__name__)


class GraphedForwardBackward:
    """`step.forward_backward`, recorded. The tensors of gradients must stay: zero them."""

    def __init__(
        self,
        learner: Learner,
        scaler: torch.amp.GradScaler,
        parameters: Sequence[Parameter],
        recorder: GraphCapturer,
        notice: Callable[[str], None],
    ) -> None:
        def work(inputs: Tensors, setting: tuple[int, bool]) -> Tensor:
            return forward_backward(learner, scaler, Batch.of(inputs, setting[0]))

        def static_tensors() -> list[Tensor]:
            return [*parameters, *(p.grad for p in parameters if p.grad is not None)]

        weights = [field.name for field in fields(Batch)].index("weights")
        self._replayed = GraphedCallable(
            work, recorder, notice, static_tensors=static_tensors, zeroed_input=weights
        )
        self._prompts = learner.prompts
        self._was_frozen = self._frozen()

    def __call__(self, batch: Batch) -> Tensor:
        frozen = self._frozen()
        if frozen != self._was_frozen:
            self.reset()  # what was recorded with the text encoder is never asked for again
            self._was_frozen = frozen
        return self._replayed(batch.tensors(), (batch.prior_count, frozen))

    def reset(self) -> None:
        """Drops all recordings and so gives their memory back; the next steps record anew."""
        self._replayed.reset()

    def _frozen(self) -> bool:
        return self._prompts.embeddings is not None


class _GraphedUNet:
    """A frozen UNet as `sampler.sample` calls it, in fp16."""

    def __init__(self, unet: Any, recorder: GraphCapturer, notice: Callable[[str], None]) -> None:
        self.device, self.dtype = unet.device, unet.dtype
        # No method of this object: in a cycle its recordings would hold memory until it is found.
        self._replayed = GraphedCallable(partial(_predict, unet), recorder, notice)

    def __call__(
        self, x: Tensor, timestep: Tensor, *, encoder_hidden_states: Tensor, **_: Any
    ) -> tuple[Tensor]:
        return (self._replayed((x, timestep, encoder_hidden_states)),)


def _predict(unet: Any, inputs: Tensors, setting: Any) -> Tensor:
    x, timestep, states = inputs
    with torch.no_grad(), torch.autocast(unet.device.type, torch.float16):
        output: Tensor = unet(x, timestep, states, return_dict=False)[0]
    return output


def graphed_unet(
    unet: Any, notice: Callable[[str], None], recorder: GraphCapturer | None = None
) -> _GraphedUNet:
    """`unet` for `sampler.sample`, without a ControlNet, recorded as CUDA graphs."""
    return _GraphedUNet(unet, recorder or CudaGraphCapturer(), notice)
