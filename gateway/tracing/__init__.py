"""Tracing: what sessions tell while somebody looks on, and the last refusals, kept for who asks later.

No I/O and no clock: whoever looks on is fed by service/window.py, and what is told costs nothing while nobody does.
"""
