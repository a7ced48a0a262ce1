# The C types of fields.py, which is compiled with them.

cpdef clean(text)

cpdef str decoded_words(str text)

cpdef str without_comments(str text)

cpdef str first_address(str value)

cpdef list addresses(str value)

cpdef list _listed(str value)

cpdef str mailbox(str value)

cpdef str _mended(str value)

cpdef str normalised(str address)

cpdef tuple typed(str value)

cpdef str recipient_address(str value)

cpdef str _without_brackets(str address)

cpdef tuple envelope_recipient(str value)
