/* The system calls of a TUN device, a batch at a time. The twin is python_tun_io.py.
 *
 * The GIL is kept throughout. Giving it away around each call costs a lone packet 0.1 µs of 2, and up to 5 ms to get it
 * back when another thread is busy. Nothing blocks here, and a batch is over within a millisecond. */

#include "wire.h"

#include <errno.h>
#include <unistd.h>

typedef struct {
    size_t packets, bytes;
} load;

static load measure_one(const uint8_t *buffer, size_t size, int offload)
{
    load load = {1, size};
    if (offload)
        offload_measure(buffer, size, &load.packets, &load.bytes);
    return load;
}

PyObject *read_buffers(PyObject *module, PyObject *args)
{
    uint8_t content[VNET_BYTES + MAX_PACKET_BYTES]; /* a copy of what came costs less than 64 KiB for whatever may */
    int descriptor, offload, error = 0;
    Py_ssize_t limit, multiple = 0;
    load total = {0};
    (void)module;
    if (!PyArg_ParseTuple(args, "inp", &descriptor, &limit, &offload))
        return NULL;
    PyObject *buffers = PyList_New(0);
    while (buffers != NULL && (Py_ssize_t)total.packets < limit) {
        ssize_t size = read(descriptor, content, sizeof content);
        if (size < 0) {
            error = errno == EAGAIN ? 0 : errno;
            break;
        }
        load load = measure_one(content, (size_t)size, offload);
        total.packets += load.packets;
        total.bytes += load.bytes;
        multiple += load.packets > 1;
        uint8_t *at = append_bytes(buffers, (size_t)size);
        if (at != NULL)
            append(at, content, (size_t)size);
        else
            Py_CLEAR(buffers);
    }
    if (buffers == NULL)
        return NULL;
    return Py_BuildValue("(Nnnni)", buffers, (Py_ssize_t)total.packets, (Py_ssize_t)total.bytes, multiple, error);
}

PyObject *write_buffers(PyObject *module, PyObject *args)
{
    PyObject *sequence;
    int descriptor, offload, error = 0;
    Py_ssize_t multiple = 0, dropped = 0;
    load total = {0};
    (void)module;
    if (!PyArg_ParseTuple(args, "iOp", &descriptor, &sequence, &offload))
        return NULL;
    PyObject *buffers = PySequence_List(sequence);
    if (buffers == NULL)
        return NULL;
    for (Py_ssize_t index = 0; error == 0 && index < PyList_Size(buffers); index++) {
        char *content;
        Py_ssize_t size;
        if (PyBytes_AsStringAndSize(PyList_GetItem(buffers, index), &content, &size) < 0) {
            Py_DECREF(buffers);
            return NULL;
        }
        load load = measure_one((const uint8_t *)content, (size_t)size, offload);
        if (write(descriptor, content, (size_t)size) >= 0) {
            total.packets += load.packets;
            total.bytes += load.bytes;
            multiple += load.packets > 1;
        } else if (errno == EBADF) {
            error = EBADF;
        } else {
            dropped += (Py_ssize_t)load.packets;
        }
    }
    Py_DECREF(buffers);
    return Py_BuildValue("(nnnni)", (Py_ssize_t)total.packets, (Py_ssize_t)total.bytes, multiple, dropped, error);
}
