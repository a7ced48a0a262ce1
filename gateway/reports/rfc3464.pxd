# The C types of rfc3464.py, which is compiled with them.

cdef class OutOfBand:
    cdef readonly str recipient, action, content, reporting_mta
    cdef readonly int code
    cdef readonly object attempted_at
    cdef readonly dict enhanced_code, added


cpdef dict named(str value)

cpdef dict diagnostic(str value)

cpdef str action(str value)

cpdef dict status(str value)

cpdef dict recipient(str value)

cpdef str date(str value)

cpdef tuple smtp_response(str value, int no_reply_code=*)

cpdef tuple understood(dict fields, dict readers)

cpdef tuple status_or_code(str value)

cpdef list out_of_band(report, list original, excerpt=*)

cpdef dict _described(dict fields, list original)

cpdef OutOfBand _entry(dict group, str mta, dict shared, excerpt)

cpdef tuple _recipients(dict group)

cpdef dict _told(dict group, grade, basic, reply)
