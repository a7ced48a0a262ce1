# The C types of original.py, which is compiled with them.

cpdef list quoted_fields(report, message)

cpdef dict first_values(list fields)

cpdef str return_path(dict values)

cpdef dict supplemental_trace(list fields)
