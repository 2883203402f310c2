/* The compiled offload kernel as a Python module. Its twin is python_kernel.py: the same names, the same bytes out. */

#include "wire.h"

static int segment_one(PyObject *super, const Py_buffer *prefix, PyObject *out)
{
    Py_buffer view;
    if (PyObject_GetBuffer(super, &view, PyBUF_SIMPLE) < 0)
        return -1;
    int result = offload_segment(view.buf, (size_t)view.len, prefix->buf, (size_t)prefix->len, out);
    PyBuffer_Release(&view);
    return result;
}

static PyObject *segment(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"supers", "prefix", NULL};
    PyObject *supers;
    Py_buffer prefix = {0};
    (void)module;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O|y*", names, &supers, &prefix))
        return NULL;
    PyObject *list = PySequence_List(supers);
    PyObject *out = list == NULL ? NULL : PyList_New(0);
    for (Py_ssize_t index = 0; out != NULL && index < PyList_Size(list); index++)
        if (segment_one(PyList_GetItem(list, index), &prefix, out) < 0)
            Py_CLEAR(out);
    Py_XDECREF(list);
    PyBuffer_Release(&prefix);
    return out;
}

static PyObject *coalesce(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"payloads", "skip", "merge_udp", NULL};
    PyObject *payloads;
    Py_ssize_t skip = 0;
    int merge_udp = 0;
    (void)module;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O|np", names, &payloads, &skip, &merge_udp))
        return NULL;
    if (skip < 0) {
        PyErr_SetString(PyExc_ValueError, "skip is a number of bytes, not negative");
        return NULL;
    }
    PyObject *list = PySequence_List(payloads); /* our own references: nothing can take the bytes away meanwhile */
    PyObject *out = list == NULL ? NULL : offload_coalesce(list, (size_t)skip, merge_udp);
    Py_XDECREF(list);
    return out;
}

static PyMethodDef methods[] = {
    {"segment", (PyCFunction)(void (*)(void))segment, METH_VARARGS | METH_KEYWORDS, NULL},
    {"coalesce", (PyCFunction)(void (*)(void))coalesce, METH_VARARGS | METH_KEYWORDS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_compiled",
    .m_doc = "Segmentation and coalescing for TUN offload; described in masque_client.netio.offload.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__compiled(void) { return PyModuleDef_Init(&definition); }
