# The C types of dates.py, which is compiled with them.

cpdef parse_date(str text)

cpdef _moment(dict parts)

cpdef int _year(str text) except -1

cpdef str rfc3339(moment)
