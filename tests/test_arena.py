"""The arena: parts that do not touch, one memory for all processes, and what an upgrade takes over of it."""

from __future__ import annotations

import os
import resource

from gateway.arena import PAGE, Arena


def test_parts_do_not_touch_and_are_zero_at_first():
    arena = Arena({"one": 10, "two": PAGE + 1, "three": 8})
    parts = [arena.part(name) for name in ("one", "two", "three")]
    assert [len(part) for part in parts] == [10, PAGE + 1, 8]
    assert not any(any(part) for part in parts)
    for number, part in enumerate(parts, 1):
        part[:] = bytes([number]) * len(part)
    assert [set(part) for part in parts] == [{1}, {2}, {3}]
    os.close(arena.fd)


def test_a_child_writes_what_its_parent_reads():
    arena = Arena({"one": 8})
    pid = os.fork()
    if not pid:
        arena.part("one")[0] = 7
        os._exit(0)
    os.waitpid(pid, 0)
    assert arena.part("one")[0] == 7
    os.close(arena.fd)


def test_the_same_layout_is_taken_over_with_what_is_in_it():
    before = Arena({"one": 8})
    before.part("one")[0] = 7
    after = Arena.inherited(os.dup(before.fd), before.layout, {"one": 8})
    assert after.part("one")[0] == 7
    after.part("one")[1] = 9
    assert before.part("one")[1] == 9
    os.close(before.fd)
    os.close(after.fd)


def test_another_layout_begins_anew_and_keeps_no_descriptor_of_the_old_one():
    before = Arena({"one": 8})
    before.part("one")[0] = 7
    handed = os.dup(before.fd)
    after = Arena.inherited(handed, before.layout, {"two": 8})
    assert after.part("two")[0] == 0
    assert handed == after.fd or not os.path.exists(f"/proc/self/fd/{handed}")
    os.close(before.fd)
    os.close(after.fd)


def test_a_program_that_had_none_leaves_none():
    arena = Arena.inherited(None, "", {"one": 8})
    assert len(arena.part("one")) == 8
    os.close(arena.fd)


def test_where_files_may_not_be_large_the_memory_is_there_without_a_descriptor():
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (PAGE, before[1]))
    try:
        arena = Arena({"one": 10 * PAGE})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert arena.fd is None
    arena.part("one")[10 * PAGE - 1] = 7
    assert Arena.inherited(arena.fd, arena.layout, {"one": 10 * PAGE}).part("one")[10 * PAGE - 1] == 0
