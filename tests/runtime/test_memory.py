"""Threads, forks and memory: sessions are shared, forked, and stay inside their buffers."""

from __future__ import annotations

import ctypes
import faulthandler
import mmap
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from lobit.bits import CodeType
from lobit.runtime import Session, isas
from tests.runtime.nets import Net
from tests.runtime.test_networks import convnet


def in_child(check: Callable[[], bool]) -> bool:
    """Run a check in a forked child; False when it fails, raises or crashes, and after 30 seconds."""
    child = os.fork()
    if not child:
        faulthandler.disable()
        signal.alarm(30)
        try:
            os._exit(0 if check() else 1)
        finally:
            os._exit(2)
    return os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_results_do_not_depend_on_threads(threads: int) -> None:
    net = convnet()
    session, x = Session(net.graph()), net.data(13)
    expected = session(x)
    session.threads = threads
    for batch in (13, 1, 13, 5):
        assert np.array_equal(session(x[:batch]), expected[:batch])


def test_works_after_a_fork() -> None:
    net = convnet()
    session, x = Session(net.graph(), threads=2), net.data(9)
    expected = session(x)  # the parent's threads exist now
    assert in_child(lambda: np.array_equal(session(x), expected) and np.array_equal(Session(net.graph(), threads=3)(x), expected))
    assert in_child(lambda: in_child(lambda: np.array_equal(session(x), expected)))
    assert np.array_equal(session(x), expected)


def test_a_child_that_is_wrong_is_noticed() -> None:
    assert not in_child(lambda: False)
    assert not in_child(lambda: ctypes.string_at(0) == b"")


def test_one_session_runs_in_many_threads_at_once() -> None:
    net = convnet()
    session = Session(net.graph(), threads=2)
    batches = [net.data(batch) for batch in (1, 9, 3, 64, 9, 2) * 4]
    expected = [session(x) for x in batches]
    with ThreadPoolExecutor(6) as pool:
        for _ in range(3):
            got = list(pool.map(session, batches))
            assert all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))


def test_forks_while_other_threads_run() -> None:
    net = convnet()
    session, x = Session(net.graph(), threads=2), net.data(16)
    expected = session(x)
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(lambda: [session(x) for _ in range(30)]) for _ in range(2)]
        assert all(in_child(lambda: np.array_equal(session(x), expected)) for _ in range(5))
        assert all(np.array_equal(y, expected) for future in running for y in future.result())


class Guarded:
    """Arrays that begin, or end, at a page that must not be touched."""

    def __init__(self) -> None:
        self.maps: list[mmap.mmap] = []
        self.libc = ctypes.CDLL(None, use_errno=True)

    def array(self, shape: tuple[int, ...], dtype: Any, at_end: bool) -> np.ndarray[Any, Any]:
        page, size = mmap.PAGESIZE, int(np.prod(shape)) * np.dtype(dtype).itemsize
        middle = -(-max(size, 1) // page) * page
        memory = mmap.mmap(-1, middle + 2 * page)
        self.maps.append(memory)
        start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        for guard in (start, start + page + middle):
            assert self.libc.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(page), 0) == 0
        return np.frombuffer(memory, dtype, int(np.prod(shape)), page + (middle - size if at_end else 0)).reshape(shape)


def outputs_to(session: Session, x: np.ndarray[Any, Any], at_end: bool) -> bool:
    """Run with the caller's buffers, intermediate values too, between guard pages."""
    guarded, plan, types = Guarded(), session._plan, session.graph.types
    kinds = {"f32": np.float32, "i32": np.int32, "codes": np.int16}
    given = guarded.array(x.shape, np.float32, at_end)
    given[...] = x
    names = [*session.graph.outputs, *session.value_names]
    places = [guarded.array((len(x), *types[name].shape), kinds[types[name].kind], at_end) for name in names]
    count = len(session.graph.outputs)
    taps = [(plan.values[name], place) for name, place in zip(names[count:], places[count:], strict=True)]
    plan.program.run(len(x), session.threads, [given], places[:count], taps, None)
    expected = session.run_values(x, session.value_names)
    return all(np.array_equal(place, expected[name]) for name, place in zip(names[count:], places[count:], strict=True))


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("isa", isas())
def test_buffers_may_end_at_guard_pages(isa: str, at_end: bool) -> None:
    for channels in (1, 3, 10, 17, 33):
        net = Net(channels, x=(channels, 3, 5))
        image = net.chain("x", ("mul", 2.0))
        codes = net.codes(image, CodeType("unsigned", 2))
        sums = net.conv(codes, net.weight(CodeType("signed", 2), channels, channels, 2, 2))
        logits = net.chain(net.linear(net.node("flatten", (codes,)), net.weight(CodeType("odd", 1), channels, channels * 15)), "to_float")
        for flat in (False, True):
            source = Net(channels, x=(channels,))
            source.chain(source.codes("x", CodeType("odd", 1)), "to_float", ("add", 1.0))
            chosen = source if flat else net
            session = Session(chosen.graph() if flat else net.graph(image, codes, sums, logits), isa=isa, threads=2)
            x = chosen.data(3)
            assert in_child(lambda session=session, x=x: outputs_to(session, x, at_end))  # type: ignore[misc]
