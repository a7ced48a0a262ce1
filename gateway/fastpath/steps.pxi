# One step of a generator: what it yields or returns. In Python the end of a generator is an exception, which costs more
# than the steps of a message do.

from cpython.ref cimport Py_DECREF, PyObject

cdef extern from "Python.h":
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    PySendResult PyIter_Send(object iterator, object value, PyObject **result) except PYGEN_ERROR


cpdef step(generator, value):
    cdef PyObject *result = NULL
    PyIter_Send(generator, value, &result)
    item = <object>result
    Py_DECREF(item)  # the reference that was given to us
    return item
