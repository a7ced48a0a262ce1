# CIDR radix tree.
