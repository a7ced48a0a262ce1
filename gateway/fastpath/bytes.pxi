# Span and byte-level helpers shared by the kernels.
