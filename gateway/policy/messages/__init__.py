"""Messages in Lua: their methods, each a thin layer over gateway/mail, and the objects that these give.

A method is a plain function over a Message and plain values, entered by its name in a table of its module; table.py
puts the tables together, at the border. A mistake of the caller's is a ValueError.
"""
