/* Inbound: packets of one batch are merged into super-packets, as a network card's receive offload would.
 *
 * A group is a run of packets of one flow that one header can stand for. It is open while more may join; a flow has at
 * most one open group, and it is the flow's latest: whatever of the flow cannot join closes it, so nothing overtakes
 * within a flow. Groups are written in the order of their first packets. The rules are those of the kernel's GRO
 * (tcp_gro_receive, inet_gro_receive), stricter where that makes merging undo exactly what segmentation does. */

#include "wire.h"

enum { MAX_OPEN_GROUPS = 32 }; /* the oldest closes for a new one; a batch seldom has that many busy flows */
enum { MAX_UDP_SEGMENTS = 64 }; /* UDP_MAX_SEGMENTS of older kernels */

typedef struct {
    const uint8_t *bytes;
    size_t size, transport, headers; /* offsets within the packet: of the transport header, of the payload */
    size_t next;                     /* index of the next packet of its group, or NONE */
} packet;

typedef struct {
    size_t first, last, count;
    size_t size;      /* of the merged packet */
    size_t segment;   /* payload of all packets but the last, which may be shorter */
    uint32_t next_sequence;
    int first_valid;  /* the first packet's checksums were looked at, and right */
} group;

typedef struct {
    packet *packets;
    group *groups;
    size_t group_count;
    size_t open[MAX_OPEN_GROUPS]; /* indices of groups, oldest first */
    size_t open_count;
} batch;

/* How much is known of a packet, and so which groups it closes: none, its hosts', its flow's, or it may join. */
enum kind { FOREIGN, HOSTS_KNOWN, FLOW_KNOWN, MERGEABLE };

static const size_t NONE = (size_t)-1;

static int is_version4(const packet *p) { return p->bytes[0] >> 4 == 4; }
static int is_tcp(const packet *p) { return p->bytes[is_version4(p) ? 9 : 6] == PROTOCOL_TCP; }
static size_t payload_bytes(const packet *p) { return p->size - p->headers; }
static const uint8_t *transport_of(const packet *p) { return p->bytes + p->transport; }

/* --- what a packet is ------------------------------------------------------------------------------------------- */

static enum kind classify_tcp(packet *p)
{
    const uint8_t *tcp = transport_of(p);
    if (p->size < p->transport + TCP_BYTES)
        return HOSTS_KNOWN;
    size_t tcp_bytes = (size_t)(tcp[12] >> 4) * 4;
    if (tcp_bytes < TCP_BYTES || p->transport + tcp_bytes > p->size)
        return HOSTS_KNOWN;
    p->headers = p->transport + tcp_bytes;
    int plain_data = (tcp[12] & 0x0F) == 0 && (tcp[13] & ~(TCP_PSH | TCP_ECE)) == TCP_ACK && payload_bytes(p) > 0;
    return plain_data ? MERGEABLE : FLOW_KNOWN;
}

static enum kind classify_udp(packet *p, int merge_udp)
{
    const uint8_t *udp = transport_of(p);
    if (p->size < p->transport + UDP_BYTES || load16(udp + 4) != p->size - p->transport)
        return HOSTS_KNOWN;
    p->headers = p->transport + UDP_BYTES;
    return merge_udp && payload_bytes(p) > 0 && load16(udp + 6) != 0 ? MERGEABLE : FLOW_KNOWN;
}

/* Fragments, IPv4 options and IPv6 extension headers are not looked behind: such packets pass alone. */
static enum kind classify(packet *p, int merge_udp)
{
    const uint8_t *ip = p->bytes;
    uint8_t protocol;
    if (p->size >= IPV4_BYTES && ip[0] >> 4 == 4) {
        if (ip[0] != 0x45 || load16(ip + 2) != p->size || load16(ip + 6) & 0xBFFF)
            return HOSTS_KNOWN;
        p->transport = IPV4_BYTES;
        protocol = ip[9];
    } else if (p->size >= IPV6_BYTES && ip[0] >> 4 == 6) {
        if (load16(ip + 4) + IPV6_BYTES != p->size || p->size > MAX_PACKET_BYTES)
            return HOSTS_KNOWN;
        p->transport = IPV6_BYTES;
        protocol = ip[6];
    } else {
        return FOREIGN;
    }
    if (protocol == PROTOCOL_TCP)
        return classify_tcp(p);
    return protocol == PROTOCOL_UDP ? classify_udp(p, merge_udp) : HOSTS_KNOWN;
}

static int same_hosts(const packet *a, const packet *b)
{
    if (is_version4(a) != is_version4(b))
        return 0;
    return is_version4(a) ? !memcmp(a->bytes + 12, b->bytes + 12, 8) : !memcmp(a->bytes + 8, b->bytes + 8, 32);
}

static int same_flow(const packet *a, const packet *b)
{
    return !memcmp(transport_of(a), transport_of(b), 4) && is_tcp(a) == is_tcp(b) && same_hosts(a, b);
}

static uint32_t pseudo_header_sum(const packet *p, size_t transport_length)
{
    uint32_t addresses = is_version4(p) ? sum16(p->bytes + 12, 8) : sum16(p->bytes + 8, 32);
    return addresses + (is_tcp(p) ? PROTOCOL_TCP : PROTOCOL_UDP) + (uint32_t)transport_length;
}

static int checksums_hold(const packet *p)
{
    size_t transport_length = p->size - p->transport;
    if (is_version4(p) && sum16(p->bytes, IPV4_BYTES) != 0)
        return 0;
    return (pseudo_header_sum(p, transport_length) + sum16(transport_of(p), transport_length)) % 0xFFFF == 0;
}

/* --- may it join ------------------------------------------------------------------------------------------------ */

static int same_ip_header(const packet *first, const packet *p, size_t index)
{
    const uint8_t *a = first->bytes, *b = p->bytes;
    if (!is_version4(p))
        return !memcmp(a, b, 4) && a[7] == b[7]; /* traffic class, flow label; hop limit */
    if (a[1] != b[1] || a[6] != b[6] || a[8] != b[8]) /* TOS, Don't Fragment, TTL */
        return 0;
    /* With DF the identification means nothing (RFC 6864 §4.1); without, segmentation counts it up. */
    return a[6] & 0x40 || ((load16(a + 4) + index) & 0xFFFF) == load16(b + 4);
}

static int same_tcp_header(const packet *first, const packet *p)
{
    const uint8_t *a = transport_of(first), *b = transport_of(p);
    return p->headers == first->headers && !memcmp(a + 8, b + 8, 5) /* acknowledgement, header length */
           && ((a[13] ^ b[13]) & ~TCP_PSH) == 0 && !memcmp(a + 14, b + 14, 2) /* flags, window */
           && !memcmp(a + 18, b + 18, p->headers - p->transport - 18);        /* urgent pointer, options */
}

static int fits(const batch *batch, const group *group, const packet *p)
{
    const packet *first = &batch->packets[group->first];
    size_t payload = payload_bytes(p);
    if (payload > group->segment || group->size + payload > MAX_PACKET_BYTES)
        return 0;
    if (!same_ip_header(first, p, group->count))
        return 0;
    if (!is_tcp(p))
        return group->count < MAX_UDP_SEGMENTS;
    return load32(transport_of(p) + 4) == group->next_sequence && same_tcp_header(first, p);
}

static int is_last_of_group(const group *group, const packet *p)
{
    return payload_bytes(p) < group->segment || (is_tcp(p) && transport_of(p)[13] & TCP_PSH);
}

/* --- groups ----------------------------------------------------------------------------------------------------- */

static void close_at(batch *batch, size_t position)
{
    batch->open_count--;
    memmove(batch->open + position, batch->open + position + 1,
            (batch->open_count - position) * sizeof batch->open[0]);
}

static size_t find_open(const batch *batch, const packet *p)
{
    for (size_t position = batch->open_count; position-- > 0;)
        if (same_flow(&batch->packets[batch->groups[batch->open[position]].first], p))
            return position;
    return NONE;
}

static void close_hosts(batch *batch, const packet *p)
{
    for (size_t position = batch->open_count; position-- > 0;)
        if (same_hosts(&batch->packets[batch->groups[batch->open[position]].first], p))
            close_at(batch, position);
}

static group *add_group(batch *batch, size_t index)
{
    group *group = &batch->groups[batch->group_count++];
    packet *p = &batch->packets[index];
    p->next = NONE;
    group->first = group->last = index;
    group->count = 1;
    group->size = p->size;
    return group;
}

static void open_group(batch *batch, size_t index)
{
    const packet *p = &batch->packets[index];
    group *group = add_group(batch, index);
    group->segment = payload_bytes(p);
    group->first_valid = 0;
    if (is_last_of_group(group, p))
        return;
    if (is_tcp(p))
        group->next_sequence = load32(transport_of(p) + 4) + (uint32_t)group->segment;
    if (batch->open_count == MAX_OPEN_GROUPS)
        close_at(batch, 0);
    batch->open[batch->open_count++] = batch->group_count - 1;
}

static void join(batch *batch, size_t position, size_t index)
{
    group *group = &batch->groups[batch->open[position]];
    packet *p = &batch->packets[index];
    p->next = NONE;
    batch->packets[group->last].next = index;
    group->last = index;
    group->count++;
    group->size += payload_bytes(p);
    group->next_sequence += (uint32_t)payload_bytes(p);
    if (is_last_of_group(group, p))
        close_at(batch, position);
}

/* Checksums are looked at only where merging would hide them: a packet that stays alone is the kernel's to judge. */
static void place_mergeable(batch *batch, size_t index)
{
    packet *p = &batch->packets[index];
    size_t position = find_open(batch, p);
    if (position != NONE) {
        group *group = &batch->groups[batch->open[position]];
        if (fits(batch, group, p)) {
            if (!group->first_valid)
                group->first_valid = checksums_hold(&batch->packets[group->first]);
            if (group->first_valid) {
                if (checksums_hold(p)) {
                    join(batch, position, index);
                } else {
                    close_at(batch, position);
                    add_group(batch, index);
                }
                return;
            }
        }
        close_at(batch, position);
    }
    open_group(batch, index);
}

static void place(batch *batch, size_t index, int merge_udp)
{
    packet *p = &batch->packets[index];
    enum kind kind = classify(p, merge_udp);
    if (kind == MERGEABLE) {
        place_mergeable(batch, index);
        return;
    }
    if (kind == FLOW_KNOWN) {
        size_t position = find_open(batch, p);
        if (position != NONE)
            close_at(batch, position);
    } else if (kind == HOSTS_KNOWN) {
        close_hosts(batch, p);
    }
    add_group(batch, index);
}

/* --- writing ---------------------------------------------------------------------------------------------------- */

/* Make the first packet's header, at `at`, stand for the whole group: lengths, PSH of the last, and the sum of the
 * pseudo-header in the checksum field, for the kernel to complete where the packet leaves the machine again. */
static void complete_header(const batch *batch, const group *group, uint8_t *at)
{
    const packet *first = &batch->packets[group->first];
    size_t transport_length = group->size - first->transport;
    uint8_t *transport = at + first->transport;
    if (is_version4(first))
        complete_ipv4_header(at, IPV4_BYTES, group->size);
    else
        store16(at + 4, (uint32_t)transport_length);
    if (is_tcp(first))
        transport[13] |= transport_of(&batch->packets[group->last])[13] & TCP_PSH;
    else
        store16(transport + 4, (uint32_t)transport_length);
    store16(transport + (is_tcp(first) ? TCP_CSUM_OFFSET : UDP_CSUM_OFFSET),
            pseudo_header_sum(first, transport_length) % 0xFFFF);
}

static int write_group(const batch *batch, const group *group, PyObject *out)
{
    const packet *first = &batch->packets[group->first];
    vnet_header header = {0};
    uint8_t *at = append_bytes(out, VNET_BYTES + group->size);
    if (at == NULL)
        return -1;
    if (group->count > 1) {
        header.flags = VNET_NEEDS_CSUM;
        header.gso_type = !is_tcp(first) ? GSO_UDP_L4 : is_version4(first) ? GSO_TCPV4 : GSO_TCPV6;
        header.hdr_len = (uint16_t)first->headers;
        header.gso_size = (uint16_t)group->segment;
        header.csum_start = (uint16_t)first->transport;
        header.csum_offset = is_tcp(first) ? TCP_CSUM_OFFSET : UDP_CSUM_OFFSET;
    }
    at = append(at, (const uint8_t *)&header, VNET_BYTES);
    uint8_t *end = append(at, first->bytes, first->size);
    for (size_t index = first->next; index != NONE; index = batch->packets[index].next) {
        const packet *p = &batch->packets[index];
        end = append(end, p->bytes + p->headers, payload_bytes(p));
    }
    if (group->count > 1)
        complete_header(batch, group, at);
    return 0;
}

static int fill(batch *batch, PyObject *payloads, size_t count, size_t skip, int merge_udp, PyObject *out)
{
    for (size_t index = 0; index < count; index++) {
        char *bytes;
        Py_ssize_t size;
        if (PyBytes_AsStringAndSize(PyList_GetItem(payloads, (Py_ssize_t)index), &bytes, &size) < 0)
            return -1;
        size_t skipped = (size_t)size < skip ? (size_t)size : skip;
        batch->packets[index].bytes = (const uint8_t *)bytes + skipped;
        batch->packets[index].size = (size_t)size - skipped;
        place(batch, index, merge_udp);
    }
    for (size_t index = 0; index < batch->group_count; index++)
        if (write_group(batch, &batch->groups[index], out) < 0)
            return -1;
    return 0;
}

PyObject *offload_coalesce(PyObject *payloads, size_t skip, int merge_udp)
{
    size_t count = (size_t)PyList_Size(payloads);
    batch batch = {0};
    batch.packets = PyMem_Calloc(count + 1, sizeof *batch.packets);
    batch.groups = PyMem_Calloc(count + 1, sizeof *batch.groups);
    PyObject *out = PyList_New(0);
    if (batch.packets == NULL || batch.groups == NULL)
        PyErr_NoMemory();
    if (PyErr_Occurred() || fill(&batch, payloads, count, skip, merge_udp, out) < 0)
        Py_CLEAR(out);
    PyMem_Free(batch.packets);
    PyMem_Free(batch.groups);
    return out;
}
