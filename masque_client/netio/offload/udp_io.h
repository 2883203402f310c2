/* The loops of a UDP socket (udp_io.c): methods of the module, whose state is theirs alone. */

#ifndef MASQUE_OFFLOAD_UDP_IO_H
#define MASQUE_OFFLOAD_UDP_IO_H

#include "wire.h"

typedef struct {
    PyTypeObject *buffer_type;  /* ReceivedBuffer */
    newfunc new_tuple;          /* tuple.__new__ */
    PyObject *fileno;           /* the name of the method */
    struct receive_area *area;  /* made when first needed; NULL while in use */
} udp_state;

int udp_init(PyObject *module);
int udp_traverse(PyObject *module, visitproc visit, void *argument);
int udp_clear(PyObject *module);
void udp_free(void *module);

PyObject *receive_trains(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *send_trains(PyObject *module, PyObject *const *arguments, Py_ssize_t count);

#endif
