/* Trains to a UDP socket, with sendmsg and UDP_SEGMENT. */

#include "udp_io.h"

#include <arpa/inet.h>
#include <sys/uio.h>

enum { MAX_SEGMENTS = 64, MAX_TRAIN_BYTES = 65000 }; /* as in python_udp_io.py, where they are explained */

typedef union {
    struct cmsghdr aligned;
    uint8_t bytes[CMSG_SPACE(sizeof(uint16_t))];
} segment_control;

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
    segment_control control = {0};
    struct msghdr message = {
        .msg_name = to,
        .msg_namelen = train->to_bytes,
        .msg_iov = train->payloads,
        .msg_iovlen = (size_t)train->count,
        .msg_control = &control,
        .msg_controllen = sizeof control.bytes,
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
