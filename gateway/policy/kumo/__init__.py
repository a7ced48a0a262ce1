"""KumoMTA's modules for policies (`kumo.string`, `kumo.serde`, …), one file a module, as plain Python.

A module's file has FUNCTIONS: each function by its Lua name, on plain Python values. Text is str; octets that are no
UTF-8 are surrogates in it (`binary` gives them back). A Lua sequence arrives as a list, another table as a dict; None
is nil. A mistake of the policy's is a ValueError with a sentence, which becomes a Lua error. What a policy holds as an
object is a class with METHODS and FIELDS. No Lua here: the border is gateway/policy/runtime.py's.
"""
