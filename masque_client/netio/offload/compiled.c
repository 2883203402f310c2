/* The compiled offload kernel as a Python module. Its twin is python_kernel.py: the same names, the same bytes out. */

#include "udp_io.h"
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

static PyObject *measure(PyObject *module, PyObject *supers)
{
    size_t packets, bytes;
    Py_ssize_t all_packets = 0, all_bytes = 0;
    (void)module;
    PyObject *list = PySequence_List(supers);
    for (Py_ssize_t index = 0; list != NULL && index < PyList_Size(list); index++) {
        char *super;
        Py_ssize_t size;
        if (PyBytes_AsStringAndSize(PyList_GetItem(list, index), &super, &size) < 0) {
            Py_CLEAR(list);
            break;
        }
        offload_measure((const uint8_t *)super, (size_t)size, &packets, &bytes);
        all_packets += (Py_ssize_t)packets;
        all_bytes += (Py_ssize_t)bytes;
    }
    if (list == NULL)
        return NULL;
    Py_DECREF(list);
    return Py_BuildValue("(nn)", all_packets, all_bytes);
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
    {"measure", measure, METH_O, NULL},
    {"read_buffers", read_buffers, METH_VARARGS, NULL},
    {"write_buffers", write_buffers, METH_VARARGS, NULL},
    {"receive_trains", (PyCFunction)(void (*)(void))receive_trains, METH_FASTCALL, NULL},
    {"send_trains", (PyCFunction)(void (*)(void))send_trains, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{Py_mod_exec, udp_init}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_compiled",
    .m_doc = "Offload for TUN devices and UDP sockets; described in masque_client.netio.offload.",
    .m_size = sizeof(udp_state),
    .m_methods = methods,
    .m_slots = slots,
    .m_traverse = udp_traverse,
    .m_clear = udp_clear,
    .m_free = udp_free,
};

PyMODINIT_FUNC PyInit__compiled(void) { return PyModuleDef_Init(&definition); }
