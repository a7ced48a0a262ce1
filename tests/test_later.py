"""Answers that come later, and steps that wait for them."""

from __future__ import annotations

import pytest

from gateway.later import Later, Steps, answered


def fails(error: Exception) -> None:
    raise error


def test_an_answer_that_is_there_is_no_wait():
    seen = []

    def steps():
        seen.append((yield answered(1)))
        seen.append((yield answered(2)))

    run = Steps(steps(), fails)
    run.go_on()
    assert (seen, run.finished) == ([1, 2], True)


def test_steps_stand_still_until_the_answer_comes():
    later, seen = Later(), []

    def steps():
        seen.append((yield later))

    run = Steps(steps(), fails)
    run.go_on()
    assert (seen, run.finished, run.waits_for) == ([], False, later)
    later.settle("now")
    assert (seen, run.finished, run.waits_for) == (["now"], True, None)


def test_an_exception_as_the_answer_is_raised_where_it_is_waited_for():
    later, seen = Later(), []

    def steps():
        try:
            yield later
        except KeyError as error:
            seen.append(error.args)

    run = Steps(steps(), fails)
    run.go_on()
    later.fail(KeyError("gone"))
    assert (seen, run.finished) == ([("gone",)], True)


@pytest.mark.parametrize("waits", [False, True])
def test_an_exception_that_leaves_the_steps_is_told(waits):
    later, told = Later(), []

    def steps():
        if waits:
            yield later
        raise ValueError("a bug")
        yield

    run = Steps(steps(), told.append)
    run.go_on()
    if waits:
        later.settle(None)
    assert [type(error) for error in told] == [ValueError]
    assert run.finished


def test_a_hundred_thousand_answers_in_a_row_need_no_deep_stack():
    count = 0

    def steps():
        nonlocal count
        for _ in range(100_000):
            later = Later()
            if count % 2:
                later.settle(None)
            waiting.append(later)
            yield later
            count += 1

    waiting: list[Later] = []
    run = Steps(steps(), fails)
    run.go_on()
    while not run.finished:
        waiting[-1].settle(None)
    assert count == 100_000


def test_cancelled_steps_end_where_they_stand_and_drop_the_answer():
    later, seen = Later(), []

    def steps():
        try:
            yield later
            seen.append("went on")
        finally:
            seen.append("cleaned up")

    run = Steps(steps(), fails)
    run.go_on()
    run.cancel()
    later.settle("too late")
    assert (seen, run.finished) == (["cleaned up"], True)
