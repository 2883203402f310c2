/* Trains from a UDP socket, with recvmmsg and UDP_GRO. */

#include "udp_io.h"

#include <arpa/inet.h>

enum { SLOTS = 16, SLOT_BYTES = 65535 }; /* no train is larger than the largest datagram */

typedef union {
    struct cmsghdr aligned;
    uint8_t bytes[CMSG_SPACE(sizeof(int))];
} gro_control;

/* Where recvmmsg writes. It is a megabyte of address space, but only what arrives at once is ever touched: a lone
 * datagram always lands in the first slot. From here payloads are copied, which costs less than to allocate for each
 * the largest there could be. */
typedef struct receive_area {
    struct mmsghdr messages[SLOTS];
    struct iovec vectors[SLOTS];
    internet_address sources[SLOTS];
    gro_control controls[SLOTS];
    uint8_t payloads[SLOTS][SLOT_BYTES];
} receive_area;

/* What one call has received so far. */
typedef struct {
    PyObject *buffers, *errors;
    Py_ssize_t datagrams, bytes, empty;
    const internet_address *source; /* of the message before, if any, */
    PyObject *source_object;        /* and what we made of it, borrowed from its buffer */
} harvest;

/* The area is away for as long as somebody uses it: making objects may collect garbage, which runs any code, which may
 * come back here. Returns NULL with an exception. */
static receive_area *take_area(udp_state *state)
{
    receive_area *area = state->area;
    state->area = NULL;
    if (area != NULL)
        return area;
    area = PyMem_Malloc(sizeof *area);
    if (area == NULL)
        return (receive_area *)PyErr_NoMemory();
    for (int slot = 0; slot < SLOTS; slot++) {
        area->vectors[slot] = (struct iovec){area->payloads[slot], SLOT_BYTES};
        area->messages[slot].msg_hdr = (struct msghdr){
            .msg_name = &area->sources[slot],
            .msg_iov = &area->vectors[slot],
            .msg_iovlen = 1,
            .msg_control = &area->controls[slot],
        };
    }
    return area;
}

static void give_back_area(udp_state *state, receive_area *area)
{
    PyMem_Free(state->area);
    state->area = area;
}

/* A new `(host, port)` as Python's sockets say it, an IPv6 scope left out; NULL with an exception. */
static PyObject *address_object(const internet_address *address)
{
    char host[INET6_ADDRSTRLEN];
    switch (address->any.sa_family) {
    case AF_INET:
        inet_ntop(AF_INET, &address->v4.sin_addr, host, sizeof host);
        return Py_BuildValue("(si)", host, (int)ntohs(address->v4.sin_port));
    case AF_INET6:
        inet_ntop(AF_INET6, &address->v6.sin6_addr, host, sizeof host);
        return Py_BuildValue("(si)", host, (int)ntohs(address->v6.sin6_port));
    default:
        return PyErr_Format(PyExc_ValueError, "family %d is not of the Internet", (int)address->any.sa_family);
    }
}

/* The segment size that UDP_GRO tells with a train; 0 without one. */
static size_t segment_size(struct msghdr *message)
{
    int size = 0;
    for (struct cmsghdr *item = CMSG_FIRSTHDR(message); item != NULL; item = CMSG_NXTHDR(message, item))
        if (item->cmsg_level == IPPROTO_UDP && item->cmsg_type == UDP_OPTION_GRO)
            memcpy(&size, CMSG_DATA(item), sizeof size);
    return size > 0 ? (size_t)size : 0;
}

/* Append one ReceivedBuffer, made by `tuple.__new__`: its own `__new__` is written in Python. */
static int append_buffer(const udp_state *state, PyObject *buffers, const uint8_t *payload, size_t length,
                         size_t segment, PyObject *address)
{
    PyObject *fields = Py_BuildValue("(y#nO)", payload, (Py_ssize_t)length, (Py_ssize_t)segment, address);
    PyObject *arguments = fields == NULL ? NULL : PyTuple_Pack(1, fields);
    PyObject *buffer = arguments == NULL ? NULL : state->new_tuple(state->buffer_type, arguments, NULL);
    int result = buffer == NULL ? -1 : PyList_Append(buffers, buffer);
    Py_XDECREF(buffer);
    Py_XDECREF(arguments);
    Py_XDECREF(fields);
    return result;
}

static int take_message(const udp_state *state, receive_area *area, int slot, PyObject *remote, harvest *harvest)
{
    const internet_address *source = &area->sources[slot];
    size_t length = area->messages[slot].msg_len;
    size_t segment = segment_size(&area->messages[slot].msg_hdr);
    PyObject *address;
    if (remote != Py_None)
        address = Py_NewRef(remote);
    else if (harvest->source != NULL && is_same_address(source, harvest->source))
        address = Py_NewRef(harvest->source_object);
    else
        address = address_object(source);
    if (address == NULL)
        return -1;
    int result = append_buffer(state, harvest->buffers, area->payloads[slot], length, segment ? segment : length,
                               address);
    harvest->source = source;
    harvest->source_object = address;
    Py_DECREF(address);
    harvest->datagrams += segment ? (Py_ssize_t)((length + segment - 1) / segment) : 1;
    harvest->bytes += (Py_ssize_t)length;
    harvest->empty += length == 0;
    return result;
}

static int note_error(harvest *harvest, int number)
{
    PyObject *object = PyLong_FromLong(number);
    int result = object == NULL ? -1 : PyList_Append(harvest->errors, object);
    Py_XDECREF(object);
    return result;
}

/* Fewer messages than slots mean that no more wait (or that an error comes next, which the kernel keeps for the next
 * call, with the descriptor readable). So a lone datagram costs one system call. */
static int receive_all(const udp_state *state, receive_area *area, int descriptor, Py_ssize_t limit, PyObject *remote,
                       harvest *harvest)
{
    while (limit > 0) {
        int slots = limit < SLOTS ? (int)limit : SLOTS;
        for (int slot = 0; slot < slots; slot++) { /* recvmmsg writes to all of these, but not to a source unknown */
            area->sources[slot].any.sa_family = AF_UNSPEC;
            area->messages[slot].msg_hdr.msg_namelen = sizeof area->sources[slot];
            area->messages[slot].msg_hdr.msg_controllen = sizeof area->controls[slot];
        }
        int count = recvmmsg(descriptor, area->messages, (unsigned)slots, MSG_DONTWAIT, NULL);
        if (count >= 0) {
            harvest->source = NULL; /* its slot was written over */
            for (int slot = 0; slot < count; slot++)
                if (take_message(state, area, slot, remote, harvest) < 0)
                    return -1;
            if (count < slots)
                return 0;
            limit -= count;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return 0;
        } else if (errno == EBADF || errno == ENOTSOCK) {
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        } else if (note_error(harvest, errno) < 0) {
            return -1;
        } else {
            limit--; /* an earlier datagram's error, reported once; what has arrived waits behind it */
        }
    }
    return 0;
}

PyObject *receive_trains(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    udp_state *state = PyModule_GetState(module);
    int descriptor;
    if (count != 3)
        return PyErr_Format(PyExc_TypeError, "receive_trains takes 3 arguments, not %zd", count);
    Py_ssize_t limit = PyLong_AsSsize_t(arguments[1]);
    if (PyErr_Occurred() || !descriptor_of(state, arguments[0], &descriptor))
        return NULL;
    receive_area *area = take_area(state);
    if (area == NULL)
        return NULL;
    harvest harvest = {.buffers = PyList_New(0), .errors = PyList_New(0)};
    int result = -1;
    if (harvest.buffers != NULL && harvest.errors != NULL)
        result = receive_all(state, area, descriptor, limit, arguments[2], &harvest);
    give_back_area(state, area);
    if (result == 0)
        return Py_BuildValue("NnnnN", harvest.buffers, harvest.datagrams, harvest.bytes, harvest.empty, harvest.errors);
    Py_XDECREF(harvest.buffers);
    Py_XDECREF(harvest.errors);
    return NULL;
}

/* --- the module's state ------------------------------------------------------------------------------------------ */

int udp_init(PyObject *module)
{
    udp_state *state = PyModule_GetState(module);
    PyObject *interface = PyImport_ImportModule("masque_client.engine.interface");
    PyObject *type = interface == NULL ? NULL : PyObject_GetAttrString(interface, "ReceivedBuffer");
    Py_XDECREF(interface);
    if (type == NULL)
        return -1;
    state->buffer_type = (PyTypeObject *)type;
    state->new_tuple = (newfunc)PyType_GetSlot(&PyTuple_Type, Py_tp_new);
    state->fileno = PyUnicode_InternFromString("fileno");
    if (!PyType_Check(type) || !PyType_IsSubtype(state->buffer_type, &PyTuple_Type))
        PyErr_SetString(PyExc_TypeError, "ReceivedBuffer is no NamedTuple");
    return PyErr_Occurred() ? -1 : 0;
}

int udp_traverse(PyObject *module, visitproc visit, void *arg)
{
    Py_VISIT(((udp_state *)PyModule_GetState(module))->buffer_type);
    return 0;
}

int udp_clear(PyObject *module)
{
    udp_state *state = PyModule_GetState(module);
    give_back_area(state, NULL);
    Py_CLEAR(state->buffer_type);
    Py_CLEAR(state->fileno);
    return 0;
}

void udp_free(void *module) { udp_clear(module); }
