"""Optimisation of inputs on a GPU: the steps of ``synthesis`` as a graph that is captured once and replayed.

A step on a small network is some two hundred kernels of a few microseconds each; launched one by one, the computer
needs ten times as long as the GPU. So the step is captured, and the computer looks at the rows after every few replays
only. A row that is done in between is frozen by the step itself, so it stops where it would have stopped alone. In
bfloat16 a row that is low is looked at in float32; one that is not yet at the target goes on, and is frozen next where
its bfloat16 loss has fallen by the share by which the float32 one was too high. Rows that are done leave the batch when
half of it has.

Threads may optimise at the same time: each has a stream of its own, and their graphs run side by side.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import torch

from empirical.descent import Descent, Rows, cross_entropies
from lipschitz.threads import one_thread

_STEPS = 32  # between two looks
_SMALL = 8  # rows that are not worth another capture


@contextlib.contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """Let the calling thread's work on a GPU run on a stream of its own, beside that of other threads."""
    if device.type != "cuda":
        yield
        return
    index = _index(device)
    if index not in _of_thread.streams:
        _of_thread.streams[index] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's stubs
    own, outer = _of_thread.streams[index], torch.cuda.current_stream(device)
    own.wait_stream(outer)
    try:
        with torch.cuda.stream(own):
            yield
    finally:
        outer.wait_stream(own)


@contextlib.contextmanager
def task_on(device: torch.device) -> Iterator[None]:
    """Let a task run beside others: on one torch thread, and on a GPU on a stream of its own."""
    with one_thread(), own_stream(device):
        yield


class _OfThread(threading.local):
    """The stream of a thread on each GPU, and its last graph there, whose memory the next one takes over."""

    def __init__(self) -> None:
        self.streams: dict[int, torch.cuda.Stream] = {}
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


_of_thread = _OfThread()
_capturing = threading.Lock()


def repeated(step: Callable[[], None], device: torch.device) -> Callable[[], object]:
    """Return what does ``step`` again: on a GPU, within ``own_stream``, a captured graph; elsewhere the step itself.

    The step is done once before it is captured. It must work in place, on tensors that the caller keeps.
    """
    if device.type != "cuda":
        return step
    step()
    graph = torch.cuda.CUDAGraph()
    last = _of_thread.graphs.get(_index(device))
    with _capturing:
        graph.capture_begin(pool=None if last is None else last.pool(), capture_error_mode="thread_local")
        try:
            step()
        finally:
            graph.capture_end()
    _of_thread.graphs[_index(device)] = graph
    return graph.replay


@dataclass(slots=True, kw_only=True)
class _State(Rows):
    """Rows whose tensors a step changes in place.

    ``age`` counts the steps of a row, and goes one beyond the most when the last point has been looked at. A row is
    frozen where its loss is at most its ``limit``. ``losses`` are those that the last step saw.
    """

    age: torch.Tensor
    limit: torch.Tensor
    losses: torch.Tensor
    best: torch.Tensor
    best_losses: torch.Tensor


def descend(descent: Descent, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the best input of each row and the steps it took."""
    device, most = rows.x.device, descent.max_iterations
    # What was made on the caller's stream stays referenced until its stream waits for this one.
    best, iterations = rows.x.clone(), torch.full_like(rows.index, most)
    with own_stream(device), torch.no_grad():
        corrections = torch.tensor([descent.rule.corrections(step) for step in range(1, most + 2)]).T.to(rows.x)
        state = _State(
            **{field.name: getattr(rows, field.name) for field in fields(rows)},
            age=torch.zeros_like(rows.index),
            limit=torch.full_like(rows.weights, descent.target, dtype=torch.float32),
            losses=torch.full_like(rows.weights, torch.inf, dtype=torch.float32),
            best=rows.x,
            best_losses=torch.full_like(rows.weights, torch.inf, dtype=torch.float32),
        )
        waiting = torch.arange(len(rows.index), device=device)
        while len(waiting):
            state = state.taken(waiting)
            again = repeated(functools.partial(_step, descent, corrections, state), device)
            is_waiting = torch.ones_like(state.index, dtype=torch.bool)
            n = n_waiting = len(state.index)
            while n_waiting > (n // 2 if n > _SMALL else 0):
                for _ in range(_STEPS):
                    again()
                is_over = is_waiting & _is_over(descent, state, is_waiting)
                best[state.index[is_over]] = state.best[is_over]
                iterations[state.index[is_over]] = state.age[is_over].clamp(max=most)
                state.limit[is_over] = torch.inf
                is_waiting &= ~is_over
                n_waiting = int(is_waiting.sum())
            waiting = torch.nonzero(is_waiting).flatten()
    return best, iterations


def _step(descent: Descent, corrections: torch.Tensor, state: _State) -> None:
    """Look at all rows, and move those that are not frozen; nothing here waits for the GPU.

    ``corrections``, (2, max_iterations + 1), are those of the rule for each age.
    """
    x = state.x.detach().requires_grad_(True)
    with torch.enable_grad():
        losses = cross_entropies(descent.logits(x), state.targets)
        gradient = descent.rule.gradient(state, x, losses)
    losses = losses.detach().to(state.losses.dtype)
    is_low = losses <= state.limit
    is_better = (losses < state.best_losses) | is_low
    is_moving = ~is_low & (state.age < descent.max_iterations)
    length, correction = corrections[:, state.age.clamp(max=descent.max_iterations), None, None, None]
    moved = descent.rule.moved(state, gradient, length, correction)
    state.losses.copy_(losses)
    _replace(state.best, is_better, state.x)
    _replace(state.best_losses, is_better, losses)
    for old, new in zip((state.x, state.mean, state.square), moved, strict=True):
        _replace(old, is_moving, new)
    state.age += ~is_low


def _is_over(descent: Descent, state: _State, is_waiting: torch.Tensor) -> torch.Tensor:
    """Return which rows are done or given up; those that are low in bfloat16 only get another limit."""
    is_low = state.losses <= state.limit
    if descent.precision != "float32":
        doubtful = torch.nonzero(is_low & is_waiting).flatten()
        if len(doubtful):
            exact = cross_entropies(descent.network(state.x[doubtful]), state.targets[doubtful])
            is_low[doubtful] = exact <= descent.target
            share = (descent.target / exact).clamp(max=0.999)
            state.limit[doubtful] = torch.where(is_low[doubtful], torch.inf, share * state.losses[doubtful])
    return is_low | (state.age > descent.max_iterations)


def _replace(old: torch.Tensor, which: torch.Tensor, new: torch.Tensor) -> None:
    torch.where(which.reshape(-1, *(1,) * (old.ndim - 1)), new, old, out=old)
