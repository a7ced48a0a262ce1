"""Mutation testing of what the promise hangs on: a change to the code that no test notices is a hole in the tests.

`make mutants` tries all (some minutes), `python -m tests.mutants --short` the contract's modules alone; both leave no
survivor but those that equivalent.txt explains. Modules are mutated uncompiled, in a copy (tests/uncompiled.py).

The mutator is our own. mutmut imports the package through trampolines that it writes into every function, which cdef
classes' methods and the kernels' cimports do not survive; cosmic-ray starts a pytest for each mutant, 3 s here for what
takes 50 ms: most mutants change one function's code, which a process that has collected the tests can fork and swap.
"""
