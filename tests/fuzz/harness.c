/* libFuzzer's entry points for a target written in Python over the compiled kernels: the kernels are linked in with
 * coverage and address sanitizer, the invariants are in the Python module that FUZZ_TARGET names. `make fuzz` runs it.
 *
 * The input is handed over as a memoryview of libFuzzer's own exact-sized buffer, so that one octet read too far is
 * seen; PYTHONMALLOC=malloc makes that true of Python's objects as well. An exception is a finding.
 */
#include <Python.h>
#include <stdint.h>

PyMODINIT_FUNC PyInit__fastpath(void);

static PyObject *target;

static void fail_on_error(int failed)
{
    if (failed) {
        PyErr_Print();
        abort();
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    PyImport_AppendInittab("_fastpath", PyInit__fastpath);
    Py_InitializeEx(0);
    PyObject *kernels = PyImport_ImportModule("_fastpath");
    fail_on_error(kernels == NULL);
    PyDict_SetItemString(PyImport_GetModuleDict(), "gateway._fastpath", kernels);
    PyObject *module = PyImport_ImportModule(getenv("FUZZ_TARGET"));
    fail_on_error(module == NULL);
    target = PyObject_GetAttrString(module, "one_input");
    fail_on_error(target == NULL);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    PyObject *view = PyMemoryView_FromMemory((char *)data, (Py_ssize_t)size, PyBUF_READ);
    PyObject *result = PyObject_CallOneArg(target, view);
    fail_on_error(result == NULL);
    Py_DECREF(result);
    Py_DECREF(view);
    return 0;
}
