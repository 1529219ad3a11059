"""The one place where arguments are checked: what it takes, what it refuses, and in what words."""

from pathlib import Path

import numpy as np
import pytest

from percolation import arguments


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3)])
def test_whole_numbers_of_every_width_become_ints(value):
    found = arguments.check_whole("n", value, least=1, most=3)
    assert (found, type(found)) == (3, int)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (
            lambda: arguments.check_whole("n", True, least=1),
            TypeError,
            r"n must be a whole number of at least 1, got True",
        ),
        (
            lambda: arguments.check_whole("n", 2**63, least=1),
            ValueError,
            f"n must be a whole number below 2.63, got {2**63}",
        ),
        (
            lambda: arguments.check_whole("n", -(10**5000), least=1),
            ValueError,
            "of at least 1, got a number of 16610 bits",
        ),
        (lambda: arguments.check_real("x", 10**400), ValueError, "x must be finite, got a number of 1329 bits"),
        (
            lambda: arguments.check_real("x", 1, above=1, least=0),
            ValueError,
            "x must be above 1 and at least 0 and fin",
        ),
        (lambda: arguments.check_real("x", "a\nb"), TypeError, r"x must be finite, got a b \(str\)"),
        (lambda: arguments.check_reals("x", [[1], [2, 3]]), TypeError, "x must be numbers, in an array or a sequence"),
        (
            lambda: arguments.check_reals("x", [1.0, np.inf], least=0),
            ValueError,
            "x must be finite and at least 0, got inf",
        ),
        (
            lambda: arguments.check_integers("x", [1] * 99, least=2),
            ValueError,
            "x must be whole numbers from 2 to .*, got 1",
        ),
        (lambda: arguments.check_integers("x", "ab", least=2), TypeError, "x must be integers, got ab"),
        (lambda: arguments.check_shape("shape", b"ab"), TypeError, "shape must be integers, one an axis, got b'ab'"),
        (lambda: arguments.check_shape("shape", np.array(3)), TypeError, "shape must be integers, one an axis, got 3"),
        (lambda: arguments.check_axes("around", [1] * 99, 3), ValueError, "around must be one bool or 3, got 99"),
        (
            lambda: arguments.check_choice("word", [1] * 99, ("a", "b", "c")),
            ValueError,
            "one of a, b, c, got a list of 99",
        ),
        (
            lambda: arguments.check_broadcast("x", np.ones(2), "y", np.ones(3)),
            ValueError,
            r"x and y must have shapes that fit, got \(2,\) and \(3,\)",
        ),
        (
            lambda: arguments.check_reals("x", np.broadcast_to(1.0, (10**9, 10**9))),
            ValueError,
            r"x must fit into the .* GB of memory, got shape \(1000000000, 1000000000\), which takes 8e.09 GB",
        ),
    ],
)
def test_what_is_refused_is_named_in_one_line(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_what_is_not_masked_is_taken_and_an_empty_list_is_one_of_any_kind():
    assert arguments.check_reals("x", np.ma.array([1.0, 2.0], mask=False)).tolist() == [1.0, 2.0]
    assert arguments.check_integers("x", [], least=0).dtype == np.int64


def test_memory_is_that_of_the_container_where_it_has_less(tmp_path, monkeypatch):
    try:
        for content, expected in (("1000\n", 1000.0), ("max\n", None)):
            path = tmp_path / "memory.max"
            path.write_text(content)
            monkeypatch.setattr(arguments, "_CGROUP", path)
            arguments.memory.cache_clear()
            assert arguments.memory() == expected if expected else arguments.memory() > 10**8
        monkeypatch.setattr(arguments, "_CGROUP", Path("/nowhere"))
        arguments.memory.cache_clear()
        assert arguments.memory() > 10**8
    finally:
        arguments.memory.cache_clear()


def test_workers_are_one_a_core_or_as_many_as_asked(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 5)
    assert (arguments.check_workers(None), arguments.check_workers(3)) == (5, 3)
