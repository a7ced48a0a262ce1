"""Answers that come later, and steps that wait for them."""

from __future__ import annotations

import pytest

from gateway.later import Later, Steps, answered, begun


def test_an_answer_that_is_there_is_no_wait():
    def steps():
        return [(yield answered(1)), (yield answered(2))]

    run = begun(steps())
    assert (run.done, run.result()) == (True, [1, 2])


def test_steps_stand_still_until_the_answer_comes():
    later = Later()

    def steps():
        return [(yield later)]

    run = begun(steps())
    assert (run.done, run.waits_for) == (False, later)
    later.settle("now")
    assert (run.done, run.result(), run.waits_for) == (True, ["now"], None)


def test_steps_wait_for_the_outcome_of_others():
    later = Later()

    def inner():
        return (yield later) + 1

    def outer():
        return (yield begun(inner())) * 10

    run = begun(outer())
    later.settle(1)
    assert run.result() == 20


def test_who_waits_for_steps_is_told_once_they_are_over():
    later, told = Later(), []

    def steps():
        yield later

    run = Steps(steps())
    run.then(lambda: told.append(run.done))
    run.go_on()
    assert told == []
    later.settle(None)
    assert told == [True]


@pytest.mark.parametrize("waits", [False, True])
def test_an_exception_as_the_answer_is_raised_where_it_is_waited_for(waits):
    later = Later()

    def steps():
        try:
            yield later
        except KeyError as error:
            if waits:
                yield second
            return error.args
        return None

    second = Later()
    run = begun(steps())
    later.fail(KeyError("gone"))
    if waits:
        assert run.waits_for is second
        second.settle(None)
    assert run.result() == ("gone",)


@pytest.mark.parametrize("waits", [False, True])
def test_an_exception_that_leaves_the_steps_is_the_answer(waits):
    later = Later()

    def steps():
        if waits:
            yield later
        raise ValueError("a bug")
        yield

    run = begun(steps())
    if waits:
        later.settle(None)
    assert (run.done, run.failed) == (True, True)
    with pytest.raises(ValueError, match="a bug"):
        run.result()


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
    run = begun(steps())
    while not run.done:
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

    run = begun(steps())
    run.then(lambda: seen.append("told"))
    run.cancel()
    later.settle("too late")
    assert (seen, run.waits_for) == (["cleaned up"], None)
