/* The loops of a UDP socket: trains in with recvmmsg and UDP_GRO, trains out with sendmsg and UDP_SEGMENT. The twin is
 * python_udp_io.py.
 *
 * The GIL is kept throughout. Nothing blocks here, giving it away costs time of its own, and keeping it is what lets us
 * send datagrams from where they lie, in a list that nobody can change meanwhile. */

#include "udp_io.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum { UDP_OPTION_SEGMENT = 103, UDP_OPTION_GRO = 104 }; /* include/uapi/linux/udp.h; older C libraries lack them */
enum { MAX_SEGMENTS = 64, MAX_TRAIN_BYTES = 65000 };     /* as in python_udp_io.py, where they are explained */
enum { SLOTS = 16, SLOT_BYTES = 65535 };

typedef union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
} internet_address;

typedef union {
    struct cmsghdr aligned;
    uint8_t segment[CMSG_SPACE(sizeof(uint16_t))];
    uint8_t gro[CMSG_SPACE(sizeof(int))];
} ancillary;

/* Returns 0 with an exception. A closed socket says -1, and the kernel then what it says of any closed descriptor. */
static int descriptor_of(const udp_state *state, PyObject *sock, int *descriptor)
{
    PyObject *object = PyObject_CallMethodObjArgs(sock, state->fileno, NULL);
    if (object == NULL)
        return 0;
    long number = PyLong_AsLong(object);
    Py_DECREF(object);
    *descriptor = number == (int)number ? (int)number : -1;
    return !(number == -1 && PyErr_Occurred());
}

/* --- receiving --------------------------------------------------------------------------------------------------- */

/* Where recvmmsg writes. It is a megabyte of address space, but only what arrives at once is ever touched: a lone
 * datagram always lands in the first slot. From here payloads are copied, which costs less than to allocate for each
 * the largest there could be. */
typedef struct receive_area {
    struct mmsghdr messages[SLOTS];
    struct iovec vectors[SLOTS];
    internet_address sources[SLOTS];
    ancillary controls[SLOTS];
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

static int is_same_address(const internet_address *a, const internet_address *b)
{
    if (a->any.sa_family != b->any.sa_family)
        return 0;
    if (a->any.sa_family == AF_INET)
        return a->v4.sin_port == b->v4.sin_port && a->v4.sin_addr.s_addr == b->v4.sin_addr.s_addr;
    return a->v6.sin6_port == b->v6.sin6_port && !memcmp(&a->v6.sin6_addr, &b->v6.sin6_addr, sizeof a->v6.sin6_addr);
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

/* --- sending ----------------------------------------------------------------------------------------------------- */

/* Datagrams for one system call. Everything in it is borrowed from the caller's list. */
typedef struct {
    struct iovec payloads[MAX_SEGMENTS];
    Py_ssize_t count;
    internet_address to;
    socklen_t to_bytes; /* 0: to the peer of a connected socket */
    int is_readable;    /* 0: not the bytes or not the address that we know, for Python to judge */
} train;

/* Fill in the sockaddr for `(host, port)` with an IP literal of `family`; 0 for anything else. */
static int read_address(PyObject *object, int family, internet_address *address, socklen_t *bytes)
{
    PyObject *host = PyTuple_Check(object) && PyTuple_Size(object) == 2 ? PyTuple_GetItem(object, 0) : NULL;
    PyObject *port = host == NULL ? NULL : PyTuple_GetItem(object, 1);
    if (host == NULL || !PyUnicode_Check(host) || !PyLong_Check(port))
        return 0;
    Py_ssize_t length;
    const char *text = PyUnicode_AsUTF8AndSize(host, &length);
    int overflow;
    long number = PyLong_AsLongAndOverflow(port, &overflow);
    if (text == NULL)
        PyErr_Clear();
    if (text == NULL || strlen(text) != (size_t)length || overflow || number < 0 || number > 0xFFFF)
        return 0;
    memset(address, 0, sizeof *address);
    address->any.sa_family = (sa_family_t)family;
    if (family == AF_INET) {
        address->v4.sin_port = htons((uint16_t)number);
        *bytes = sizeof address->v4;
        return inet_pton(AF_INET, text, &address->v4.sin_addr) == 1;
    }
    address->v6.sin6_port = htons((uint16_t)number);
    *bytes = sizeof address->v6;
    return family == AF_INET6 && inet_pton(AF_INET6, text, &address->v6.sin6_addr) == 1;
}

/* Point `payload` and `address` at what item `index` holds; 0 when that is not `(bytes, address)`. */
static int read_datagram(PyObject *list, Py_ssize_t index, struct iovec *payload, PyObject **address)
{
    PyObject *pair = PyList_GetItem(list, index);
    PyObject *data = PyTuple_Check(pair) && PyTuple_Size(pair) == 2 ? PyTuple_GetItem(pair, 0) : NULL;
    if (data == NULL || !PyBytes_Check(data))
        return 0;
    *payload = (struct iovec){PyBytes_AsString(data), (size_t)PyBytes_Size(data)};
    *address = PyTuple_GetItem(pair, 1);
    return 1;
}

/* The train that starts at `start`: same address, same size; a shorter one may close it. A zero-length datagram travels
 * alone: as the last of a train it would vanish. */
static void find_train(PyObject *list, Py_ssize_t start, int family, int in_trains, train *train)
{
    PyObject *address, *other;
    train->count = 1;
    train->to_bytes = 0;
    train->is_readable = read_datagram(list, start, &train->payloads[0], &address) &&
                         (family == AF_UNSPEC || read_address(address, family, &train->to, &train->to_bytes));
    if (!train->is_readable || !in_trains || train->payloads[0].iov_len == 0)
        return;
    size_t size = train->payloads[0].iov_len;
    Py_ssize_t room = MAX_TRAIN_BYTES / size < MAX_SEGMENTS ? (Py_ssize_t)(MAX_TRAIN_BYTES / size) : MAX_SEGMENTS;
    Py_ssize_t waiting = PyList_Size(list) - start;
    for (Py_ssize_t limit = room < waiting ? room : waiting; train->count < limit; train->count++) {
        struct iovec *payload = &train->payloads[train->count];
        if (!read_datagram(list, start + train->count, payload, &other) || payload->iov_len > size || !payload->iov_len)
            return;
        internet_address to;
        socklen_t to_bytes;
        if (family != AF_UNSPEC && other != address &&
            !(read_address(other, family, &to, &to_bytes) && is_same_address(&to, &train->to)))
            return;
        if (payload->iov_len < size) {
            train->count++;
            return;
        }
    }
}

static ssize_t send_train(int descriptor, train *train)
{
    struct sockaddr *to = train->to_bytes ? &train->to.any : NULL;
    if (train->count == 1) /* sendto costs less than sendmsg */
        return sendto(descriptor, train->payloads[0].iov_base, train->payloads[0].iov_len, MSG_DONTWAIT, to,
                      train->to_bytes);
    ancillary control = {0};
    struct msghdr message = {
        .msg_name = to,
        .msg_namelen = train->to_bytes,
        .msg_iov = train->payloads,
        .msg_iovlen = (size_t)train->count,
        .msg_control = &control,
        .msg_controllen = sizeof control.segment,
    };
    uint16_t size = (uint16_t)train->payloads[0].iov_len;
    struct cmsghdr *item = CMSG_FIRSTHDR(&message);
    item->cmsg_level = IPPROTO_UDP;
    item->cmsg_type = UDP_OPTION_SEGMENT;
    item->cmsg_len = CMSG_LEN(sizeof size);
    memcpy(CMSG_DATA(item), &size, sizeof size);
    return sendmsg(descriptor, &message, MSG_DONTWAIT);
}

/* From `position` on, until the list ends or the kernel refuses something. */
static PyObject *send_all(int descriptor, PyObject *list, Py_ssize_t position, int family, int in_trains)
{
    int error = 0;
    Py_ssize_t calls = 0, bytes = 0, end = position;
    for (Py_ssize_t count = PyList_Size(list); position < count; position = end) {
        train train;
        find_train(list, position, family, in_trains, &train);
        end = position + train.count;
        ssize_t sent = train.is_readable ? send_train(descriptor, &train) : -1;
        if (sent < 0) {
            error = train.is_readable ? errno : EAFNOSUPPORT;
            break;
        }
        calls++;
        bytes += sent;
    }
    return Py_BuildValue("nninn", position, end, error, calls, bytes);
}

PyObject *send_trains(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    int descriptor;
    if (count != 5)
        return PyErr_Format(PyExc_TypeError, "send_trains takes 5 arguments, not %zd", count);
    Py_ssize_t start = PyLong_AsSsize_t(arguments[2]);
    long family = PyErr_Occurred() ? 0 : PyLong_AsLong(arguments[3]);
    int in_trains = PyErr_Occurred() ? 0 : PyObject_IsTrue(arguments[4]);
    if (PyErr_Occurred() || !descriptor_of(PyModule_GetState(module), arguments[0], &descriptor))
        return NULL;
    if (start < 0)
        return PyErr_Format(PyExc_ValueError, "start is an index, not negative");
    PyObject *list = PyList_Check(arguments[1]) ? Py_NewRef(arguments[1]) : PySequence_List(arguments[1]);
    if (list == NULL)
        return NULL;
    PyObject *outcome = send_all(descriptor, list, start, (int)family, in_trains);
    Py_DECREF(list);
    return outcome;
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
