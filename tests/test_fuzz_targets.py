"""The short form of the fuzzing of what comes under TLS, what members answer and what is read from files:
seeded, always the same.
"""

from __future__ import annotations

from random import Random

from tests.fuzz import fuzz_files, fuzz_tls, fuzz_upstream


def test_no_octets_make_tls_fail_otherwise_than_it_says_and_what_was_written_arrives() -> None:
    random = Random(3)
    for _ in range(150):
        fuzz_tls.one_input(memoryview(random.randbytes(random.randrange(1, 80))))


def test_nothing_that_a_member_says_makes_a_success_of_what_is_none() -> None:
    random = Random(1)
    for _ in range(400):
        octets = random.randbytes(random.randrange(4, 24))
        meant = bytes([octet % 128 for octet in octets[3:]])
        fuzz_upstream.one_input(memoryview(octets[:3] + (meant if random.random() < 0.8 else octets[3:])))


def test_the_good_files_are_read_as_they_were_written() -> None:
    fuzz_files.check_segment(fuzz_files.segment())
    fuzz_files.check_spool(fuzz_files.spool())


def test_no_damage_makes_a_reader_of_files_fail_otherwise_than_it_says() -> None:
    random = Random(2)
    for number in range(120):
        fuzz_files.one_input(memoryview(bytes([number]) + random.randbytes(random.randrange(1, 20))))
