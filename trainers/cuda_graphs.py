"""CUDA graphs: work captured once and replayed without launching its kernels one by one.

A step of SD 1.5 has thousands of small kernels, and a GPU finishes each sooner than Python launches
the next. Forward and backward are captured together; the optimizer stays outside, because some
optimizers read values on the host and those of bitsandbytes may move the weights.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Protocol
from weakref import WeakSet

import torch
from torch import Tensor
from torch.nn import Parameter

from .batches import Batch
from .memory import is_out_of_memory, release_memory
from .step import Learner, forward_backward

Tensors = tuple[Tensor, ...]
# (inputs, setting) -> output; the setting is all that affects the computation except tensors
Work = Callable[[Tensors, Any], Tensor]

WARMUP_CALLS = 3  # calls before capture, in which libraries select and prepare their kernels
# Captioned photographs in buckets, at batch 4 to 8, give 26 to 38 kinds of batches. Each graph
# holds its kernels, inputs and output; working memory is shared.
MAX_GRAPHS = 48


class GraphCapturer(Protocol):
    """Captures work without inputs: `CudaGraphCapturer`, or a stand-in for tests without a GPU."""

    def capture(
        self, work: Callable[[], Tensor], *, save_memory: bool = False
    ) -> tuple[Callable[[], None], Tensor]:
        """Returns a function that replays the work, and the tensor that each replay fills.

        With `save_memory`, calls before the capture use the memory of the existing graphs.
        """
        ...


class CudaGraphCapturer:
    """Captures CUDA graphs that share one memory pool; they are replayed one at a time."""

    def __init__(self) -> None:
        self._graphs: WeakSet[torch.cuda.CUDAGraph] = WeakSet()
        self._stream = torch.cuda.Stream()

    def capture(
        self, work: Callable[[], Tensor], *, save_memory: bool = False
    ) -> tuple[Callable[[], None], Tensor]:
        """Runs `work` WARMUP_CALLS times on a side stream, then captures it.

        With `save_memory`, these calls allocate from the pool of the existing graphs, which hold a
        step's memory. Raises RuntimeError if something in it cannot be captured.
        """
        gc.collect()  # an autograd graph in a cycle would bind its weights to another stream
        current, pool = torch.cuda.current_stream(), self._pool()
        self._stream.wait_stream(current)
        try:
            with (
                torch.cuda.stream(self._stream),
                _allocate_from(pool) if save_memory else nullcontext(),
            ):
                for _ in range(WARMUP_CALLS):
                    work()
        finally:  # also on failure: what follows uses the same gradients
            current.wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        with (
            _clean_up_failed_capture(pool),
            torch.cuda.graph(graph, pool=pool, stream=self._stream),
        ):
            output = work()
        self._graphs.add(graph)
        return graph.replay, output

    def _pool(self) -> Any:
        """Pool of the existing graphs; a pool whose graphs are all gone cannot be reused."""
        pools = [graph.pool() for graph in self._graphs]
        return pools[0] if pools else torch.cuda.graph_pool_handle()


@contextmanager
def _allocate_from(pool: Any) -> Iterator[None]:
    """Has what the current stream allocates, in any thread, come from a graphs' pool."""
    device = torch.cuda.current_device()
    try:
        torch._C._cuda_beginAllocateCurrentStreamToPool(device, pool)
    except (AttributeError, TypeError) as error:  # a PyTorch with other internals
        raise RuntimeError(str(error)) from error
    try:
        yield
    finally:
        _end_allocation(device, pool)


def _end_allocation(device: int, pool: Any) -> None:
    """Ends what `_cuda_beginAllocateCurrentStreamToPool` or a capture has begun."""
    new = hasattr(torch._C, "_cuda_endAllocateToPool")
    name = "_cuda_endAllocateToPool" if new else "_cuda_endAllocateCurrentStreamToPool"
    getattr(torch._C, name)(device, pool)
    torch._C._cuda_releasePool(device, pool)


@contextmanager
def _clean_up_failed_capture(pool: Any) -> Iterator[None]:
    """Repairs the state that PyTorch leaves behind if ending a capture raises an error.

    The capture stream stays current, and the random number generator expects a replay and rejects
    any other use. Before PyTorch pull request 180395, the allocator also considers the capture
    active: it frees none of its cached memory, even when out of memory, and `empty_cache` raises.
    """
    with torch.cuda.stream(torch.cuda.current_stream()):  # restores it on exit
        try:
            yield
        except BaseException:
            device = torch.cuda.current_device()
            with suppress(RuntimeError, TypeError, AttributeError):  # the allocator has ended it
                _end_allocation(device, pool)
            with suppress(RuntimeError):
                _replace_generator_state(device)
            raise


def _replace_generator_state(device: int) -> None:
    """Replaces the generator's state with a new one at the same position of its sequence."""
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
    """Calls `work`, captured once per setting and input shapes.

    The first call is eager and creates what a capture needs: the gradient tensors. If the work
    cannot be captured, `notice(text)` reports it once and later calls are eager. The next call
    overwrites the returned tensor.

    Args:
        static_tensors: gives the tensors that the work reads or writes besides its inputs. If one
            moves, the graphs are stale: they are captured again, and the second time calls become
            eager.
        zeroed_input: index of an input that is zero during warm-up, so that this has no effect:
            the loss weights.
    """

    def __init__(
        self,
        work: Work,
        capturer: GraphCapturer,
        notice: Callable[[str], None],
        *,
        static_tensors: Callable[[], Sequence[Tensor]] = tuple,
        zeroed_input: int | None = None,
    ) -> None:
        self._work, self._capturer, self._notice = work, capturer, notice
        self._static_tensors, self._zeroed_input = static_tensors, zeroed_input
        self._captured_graphs: dict[Hashable, _CapturedGraph] = {}
        self._seen_keys: set[Hashable] = set()
        self._is_eager = False
        self._has_moved = False
        self._has_warned = False

    def __call__(self, inputs: Tensors, setting: Hashable = None) -> Tensor:
        graph = None if self._is_eager else self._graph_for(inputs, setting)
        if graph is None:
            return self._work(inputs, setting)
        for buffer, value in zip(graph.inputs, inputs, strict=True):
            buffer.copy_(value, non_blocking=True)
        graph.replay()
        return graph.output

    def reset(self) -> None:
        """Drops all graphs; they are captured again when needed."""
        self._captured_graphs.clear()

    def _graph_for(self, inputs: Tensors, setting: Hashable) -> _CapturedGraph | None:
        key = (setting, *((tuple(value.shape), value.dtype) for value in inputs))
        if key not in self._seen_keys:
            self._seen_keys.add(key)
            # Graphs hold a step's memory, which may leave too little for an eager call.
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
        graph = self._try_capture(inputs, setting, addresses)
        if graph is not None:
            self._captured_graphs[key] = graph
        return graph

    def _try_capture(
        self, inputs: Tensors, setting: Hashable, addresses: tuple[int, ...]
    ) -> _CapturedGraph | None:
        """The captured work; None if this failed, after which calls are eager.

        Beside graphs of other kinds, which hold a step's memory, a second attempt shares that.
        """
        for save_memory in (False, True):
            try:
                return self._capture(inputs, setting, addresses, save_memory)
            except RuntimeError as error:  # from torch, including out of memory
                cause = _root_cause(error)
            if save_memory or not self._captured_graphs or not is_out_of_memory(cause):
                break
            release_memory()  # outside `except`: the error's traceback would keep tensors alive
        self._fall_back_to_eager(next(iter(str(cause).splitlines()), type(cause).__name__))
        return None

    def _capture(
        self, inputs: Tensors, setting: Hashable, addresses: tuple[int, ...], save_memory: bool
    ) -> _CapturedGraph:
        buffers = tuple(value.clone() for value in inputs)
        if self._zeroed_input is not None:
            buffers[self._zeroed_input].zero_()
        replay, output = self._capturer.capture(
            lambda: self._work(buffers, setting), save_memory=save_memory
        )
        return _CapturedGraph(buffers, output, replay, addresses)

    def _invalidate_moved(self) -> bool:
        """Drops all graphs; from the second time on returns False, and calls become eager."""
        self._captured_graphs.clear()
        if self._has_moved:
            self._fall_back_to_eager("the weights keep moving in memory")
        self._has_moved = True
        return not self._is_eager

    def _warn_graph_limit(self) -> None:
        if not self._has_warned:
            self._notice(
                f"CUDA graphs are kept for {MAX_GRAPHS} kinds of batches (shapes and numbers of "
                f"prompts), and there are {len(self._seen_keys)} so far: the others run without "
                "graphs, more slowly. A smaller batch or no buckets gives fewer kinds."
            )
        self._has_warned = True

    def _fall_back_to_eager(self, reason: str) -> None:
        self._is_eager = True
        self._captured_graphs.clear()
        self._notice(f"CUDA graphs are not used, so steps are slower: {reason}")


def _root_cause(error: BaseException) -> BaseException:
    """The original error, without its traceback: one during a capture also makes its end fail."""
    while error.__context__ is not None:
        error = error.__context__
    return error.with_traceback(None)


class GraphedForwardBackward:
    """`step.forward_backward` as CUDA graphs. Gradient tensors must persist: zero them in place."""

    def __init__(
        self,
        learner: Learner,
        scaler: torch.amp.GradScaler,
        parameters: Sequence[Parameter],
        capturer: GraphCapturer,
        notice: Callable[[str], None],
    ) -> None:
        def work(inputs: Tensors, setting: tuple[int, bool]) -> Tensor:
            return forward_backward(learner, scaler, Batch.of(inputs, setting[0]))

        def static_tensors() -> list[Tensor]:
            return [*parameters, *(p.grad for p in parameters if p.grad is not None)]

        weights = [field.name for field in fields(Batch)].index("weights")
        self._replayed = GraphedCallable(
            work, capturer, notice, static_tensors=static_tensors, zeroed_input=weights
        )
        self._prompts = learner.prompts
        self._was_frozen = self._frozen()

    def __call__(self, batch: Batch) -> Tensor:
        frozen = self._frozen()
        if frozen != self._was_frozen:
            self.reset()  # graphs of the other mode are no longer used
            self._was_frozen = frozen
        return self._replayed(batch.tensors(), (batch.prior_count, frozen))

    def reset(self) -> None:
        """Drops all graphs, freeing their memory; the next steps capture them again."""
        self._replayed.reset()

    def _frozen(self) -> bool:
        return self._prompts.embeddings is not None


class _GraphedUNet:
    """A frozen UNet as `sampler.sample` calls it, in fp16."""

    def __init__(self, unet: Any, capturer: GraphCapturer, notice: Callable[[str], None]) -> None:
        self.device, self.dtype = unet.device, unet.dtype
        # Not a bound method: in a cycle its graphs would hold memory until garbage collection.
        self._replayed = GraphedCallable(partial(_predict, unet), capturer, notice)

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
    unet: Any, notice: Callable[[str], None], capturer: GraphCapturer | None = None
) -> _GraphedUNet:
    """`unet` for `sampler.sample`, without a ControlNet, captured as CUDA graphs."""
    return _GraphedUNet(unet, capturer or CudaGraphCapturer(), notice)
