/* Bytes on the wire for the offload kernel: big-endian access, Internet checksums, the virtio_net_hdr.
 *
 * Every sum is kept in one canonical form, the big-endian 16-bit one's-complement sum modulo 0xFFFF (so 0 to 0xFFFE),
 * because that is what the pure-Python twin computes, and the two must agree to the byte. */

#ifndef MASQUE_OFFLOAD_WIRE_H
#define MASQUE_OFFLOAD_WIRE_H

#define Py_LIMITED_API 0x030B0000 /* 3.11: one build serves all later versions */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* include/uapi/linux/virtio_net.h; native byte order, as TUN has it unless asked otherwise */
enum { VNET_BYTES = 10, VNET_NEEDS_CSUM = 1 };
enum { GSO_NONE = 0, GSO_TCPV4 = 1, GSO_TCPV6 = 4, GSO_UDP_L4 = 5, GSO_ECN = 0x80 };

typedef struct {
    uint8_t flags, gso_type;
    uint16_t hdr_len, gso_size, csum_start, csum_offset;
} vnet_header;
_Static_assert(sizeof(vnet_header) == VNET_BYTES, "virtio_net_hdr has no padding");

enum { PROTOCOL_TCP = 6, PROTOCOL_UDP = 17 };
enum { IPV4_BYTES = 20, IPV6_BYTES = 40, TCP_BYTES = 20, UDP_BYTES = 8, MAX_PACKET_BYTES = 65535 };
enum { TCP_CSUM_OFFSET = 16, UDP_CSUM_OFFSET = 6 };
enum { TCP_FIN = 0x01, TCP_PSH = 0x08, TCP_ACK = 0x10, TCP_ECE = 0x40, TCP_CWR = 0x80 };

static inline uint32_t load16(const uint8_t *at) { return (uint32_t)at[0] << 8 | at[1]; }
static inline uint32_t load32(const uint8_t *at) { return load16(at) << 16 | load16(at + 2); }
static inline void store16(uint8_t *at, uint32_t value) { at[0] = (uint8_t)(value >> 8); at[1] = (uint8_t)value; }
static inline void store32(uint8_t *at, uint32_t value) { store16(at, value >> 16); store16(at + 2, value); }

/* The canonical sum of `size` bytes; an odd last byte counts as if a zero followed (RFC 1071). */
static inline uint32_t sum16(const uint8_t *bytes, size_t size)
{
    uint64_t sum = 0; /* of 32-bit words: no overflow below 2^32 words */
    for (; size >= 32; size -= 32, bytes += 32) {
        uint32_t words[8];
        memcpy(words, bytes, sizeof words); /* the compiler makes vector loads and adds of this block */
        for (int i = 0; i < 8; i++)
            sum += words[i];
    }
    for (; size >= 2; size -= 2, bytes += 2) {
        uint16_t word;
        memcpy(&word, bytes, sizeof word);
        sum += word;
    }
    if (size) {
        uint8_t padded[2] = {bytes[0], 0};
        uint16_t word;
        memcpy(&word, padded, sizeof word);
        sum += word;
    }
    uint32_t folded = (uint32_t)(sum % 0xFFFF);
    uint16_t native = (uint16_t)folded;
    uint8_t wire[2];
    memcpy(wire, &native, sizeof wire); /* one's-complement sums may be swapped as a whole (RFC 1071 §2) */
    return load16(wire);
}

/* What a checksum field must hold for the sum of everything else to become zero. A transport's is never zero, which
 * UDP reserves for "none" and the kernel avoids for all (skb_checksum_help); an IPv4 header's may be. */
static inline uint32_t transport_checksum(uint32_t sum) { return 0xFFFF - sum % 0xFFFF; }
static inline uint32_t header_checksum(uint32_t sum) { return (0xFFFF - sum % 0xFFFF) % 0xFFFF; }

static inline void complete_ipv4_header(uint8_t *header, size_t header_bytes, size_t total_length)
{
    store16(header + 2, (uint32_t)total_length);
    store16(header + 10, 0);
    store16(header + 10, header_checksum(sum16(header, header_bytes)));
}

/* Copy, and return where the next bytes go. */
static inline uint8_t *append(uint8_t *to, const uint8_t *bytes, size_t size)
{
    if (size > 0) /* empty buffers may have no address */
        memcpy(to, bytes, size);
    return to + size;
}

/* Append a new bytes object of `size` to `list` and return where to write its content; NULL with an exception. */
static inline uint8_t *append_bytes(PyObject *list, size_t size)
{
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (bytes == NULL)
        return NULL;
    int failed = PyList_Append(list, bytes);
    uint8_t *content = (uint8_t *)PyBytes_AsString(bytes);
    Py_DECREF(bytes); /* the list holds it */
    return failed ? NULL : content;
}

/* One super-packet, virtio_net_hdr first, becomes packets appended to `out`, each behind `prefix`; -1 on exception. */
int offload_segment(const uint8_t *super, size_t size, const uint8_t *prefix, size_t prefix_bytes, PyObject *out);

/* How many packets that makes, and their bytes together, headers of all included. */
void offload_measure(const uint8_t *super, size_t size, size_t *packets, size_t *bytes);

/* The packets within the bytes objects of `payloads`, each behind `skip` bytes, merged into a new list. */
PyObject *offload_coalesce(PyObject *payloads, size_t skip, int merge_udp);

/* Of a TUN device; methods of the module. */
PyObject *read_buffers(PyObject *module, PyObject *args);
PyObject *write_buffers(PyObject *module, PyObject *args);

#endif
