/* The loops of a UDP socket: udp_receive.c and udp_send.c, whose twin is python_udp_io.py. They are methods of the
 * module, whose state is theirs alone.
 *
 * Both keep the GIL throughout. Nothing blocks here; given away, it may take a busy thread's 5 ms to get it back; and
 * keeping it is what lets us send datagrams from where they lie, in a list that nobody can change meanwhile. */

#ifndef MASQUE_OFFLOAD_UDP_IO_H
#define MASQUE_OFFLOAD_UDP_IO_H

#include "wire.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

enum { UDP_OPTION_SEGMENT = 103, UDP_OPTION_GRO = 104 }; /* include/uapi/linux/udp.h; older C libraries lack them */

typedef struct {
    PyTypeObject *buffer_type;  /* ReceivedBuffer */
    newfunc new_tuple;          /* tuple.__new__ */
    PyObject *fileno;           /* the name of the method */
    struct receive_area *area;  /* made when first needed; NULL while in use */
} udp_state;

typedef union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
} internet_address;

static inline int is_same_address(const internet_address *a, const internet_address *b)
{
    if (a->any.sa_family != b->any.sa_family)
        return 0;
    if (a->any.sa_family == AF_INET)
        return a->v4.sin_port == b->v4.sin_port && a->v4.sin_addr.s_addr == b->v4.sin_addr.s_addr;
    return a->v6.sin6_port == b->v6.sin6_port && !memcmp(&a->v6.sin6_addr, &b->v6.sin6_addr, sizeof a->v6.sin6_addr);
}

/* Returns 0 with an exception. A closed socket says -1, and the kernel then what it says of any closed descriptor. */
static inline int descriptor_of(const udp_state *state, PyObject *sock, int *descriptor)
{
    PyObject *object = PyObject_CallMethodObjArgs(sock, state->fileno, NULL);
    if (object == NULL)
        return 0;
    long number = PyLong_AsLong(object);
    Py_DECREF(object);
    *descriptor = number == (int)number ? (int)number : -1;
    return !(number == -1 && PyErr_Occurred());
}

PyObject *receive_trains(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *send_trains(PyObject *module, PyObject *const *arguments, Py_ssize_t count);

int udp_init(PyObject *module);
int udp_traverse(PyObject *module, visitproc visit, void *arg);
int udp_clear(PyObject *module);
void udp_free(void *module);

#endif
