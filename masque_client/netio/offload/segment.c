/* Outbound: a super-packet of the kernel becomes the packets that a network card would have made of it. */

#include "wire.h"

typedef struct {
    const uint8_t *packet;
    size_t size;
    size_t transport; /* offset of the TCP or UDP header */
    size_t headers;   /* all headers together */
    size_t segment;   /* payload per packet */
    int version;      /* of IP */
    int is_tcp;
} plan;

static int whole(const uint8_t *packet, size_t size, const uint8_t *prefix, size_t prefix_bytes, PyObject *out,
                 uint8_t **copy)
{
    uint8_t *at = append_bytes(out, prefix_bytes + size);
    if (at == NULL)
        return -1;
    *copy = append(at, prefix, prefix_bytes);
    append(*copy, packet, size);
    return 0;
}

/* Fill in what the header leaves to be found out; 0 when the super-packet makes no sense. The kernel's hdr_len is only
 * a hint (it may be the length of the first packet on a forwarding path), so the headers are measured here. */
static int make_plan(const vnet_header *header, const uint8_t *packet, size_t size, plan *plan)
{
    int type = header->gso_type & ~GSO_ECN;
    size_t transport = header->csum_start;
    if (!(header->flags & VNET_NEEDS_CSUM) || header->gso_size == 0 || size > MAX_PACKET_BYTES || size < IPV4_BYTES)
        return 0;
    int version = packet[0] >> 4;
    if (version == 4) {
        if (transport < IPV4_BYTES || transport != (size_t)(packet[0] & 0x0F) * 4 || type == GSO_TCPV6)
            return 0;
    } else if (version != 6 || transport < IPV6_BYTES || type == GSO_TCPV4) {
        return 0;
    }
    size_t transport_bytes;
    if (type == GSO_TCPV4 || type == GSO_TCPV6) {
        if (header->csum_offset != TCP_CSUM_OFFSET || transport + TCP_BYTES > size)
            return 0;
        transport_bytes = (size_t)(packet[transport + 12] >> 4) * 4;
        if (transport_bytes < TCP_BYTES)
            return 0;
    } else if (type == GSO_UDP_L4) {
        if (header->csum_offset != UDP_CSUM_OFFSET)
            return 0;
        transport_bytes = UDP_BYTES;
    } else {
        return 0;
    }
    if (transport + transport_bytes > size)
        return 0;
    plan->packet = packet;
    plan->size = size;
    plan->transport = transport;
    plan->headers = transport + transport_bytes;
    plan->segment = header->gso_size;
    plan->version = version;
    plan->is_tcp = type != GSO_UDP_L4;
    return 1;
}

/* Write packet number `index`, whose payload starts `offset` bytes into the super-packet's, to `at`. */
static void write_segment(const plan *plan, size_t index, size_t offset, size_t payload, int is_last, uint8_t *at)
{
    uint8_t *transport = at + plan->transport;
    size_t transport_length = plan->headers - plan->transport + payload;
    append(append(at, plan->packet, plan->headers), plan->packet + plan->headers + offset, payload);
    if (plan->version == 4) {
        store16(at + 4, load16(at + 4) + (uint32_t)index);
        complete_ipv4_header(at, plan->transport, plan->headers + payload);
    } else {
        store16(at + 4, (uint32_t)(plan->headers + payload - IPV6_BYTES));
    }
    if (plan->is_tcp) {
        store32(transport + 4, load32(transport + 4) + (uint32_t)offset);
        if (index > 0)
            transport[13] &= (uint8_t)~TCP_CWR;
        if (!is_last)
            transport[13] &= (uint8_t)~(TCP_FIN | TCP_PSH);
    } else {
        store16(transport + 4, (uint32_t)transport_length);
    }
    /* The field holds the pseudo-header's sum for the whole super-packet: exchange the length, the rest stays. (No
     * look at the addresses: with an IPv6 routing header they are not those of the pseudo-header.) */
    uint8_t *field = transport + (plan->is_tcp ? TCP_CSUM_OFFSET : UDP_CSUM_OFFSET);
    uint32_t pseudo = load16(field) + (0xFFFF - (uint32_t)(plan->size - plan->transport)) + (uint32_t)transport_length;
    store16(field, 0);
    store16(field, transport_checksum(pseudo + sum16(transport, transport_length)));
}

int offload_segment(const uint8_t *super, size_t size, const uint8_t *prefix, size_t prefix_bytes, PyObject *out)
{
    vnet_header header = {0};
    const uint8_t *packet = super;
    uint8_t *copy;
    plan plan;
    if (size < VNET_BYTES)
        return whole(super, 0, prefix, prefix_bytes, out, &copy);
    memcpy(&header, super, VNET_BYTES);
    packet += VNET_BYTES;
    size -= VNET_BYTES;
    if (header.gso_type == GSO_NONE || !make_plan(&header, packet, size, &plan)) {
        if (whole(packet, size, prefix, prefix_bytes, out, &copy) < 0)
            return -1;
        size_t start = header.csum_start, field = start + header.csum_offset;
        if (header.gso_type == GSO_NONE && header.flags & VNET_NEEDS_CSUM && field + 2 <= size)
            store16(copy + field, transport_checksum(sum16(copy + start, size - start)));
        return 0;
    }
    size_t rest = plan.size - plan.headers;
    for (size_t index = 0, offset = 0; index == 0 || rest > 0; index++) {
        size_t payload = rest < plan.segment ? rest : plan.segment;
        uint8_t *at = append_bytes(out, prefix_bytes + plan.headers + payload);
        if (at == NULL)
            return -1;
        rest -= payload;
        write_segment(&plan, index, offset, payload, rest == 0, append(at, prefix, prefix_bytes));
        offset += payload;
    }
    return 0;
}

void offload_measure(const uint8_t *super, size_t size, size_t *packets, size_t *bytes)
{
    vnet_header header;
    plan plan;
    *packets = 1;
    *bytes = size < VNET_BYTES ? 0 : size - VNET_BYTES;
    if (size < VNET_BYTES)
        return;
    memcpy(&header, super, VNET_BYTES);
    if (header.gso_type == GSO_NONE || !make_plan(&header, super + VNET_BYTES, *bytes, &plan))
        return;
    size_t payload = plan.size - plan.headers;
    if (payload > plan.segment)
        *packets = (payload + plan.segment - 1) / plan.segment;
    *bytes += (*packets - 1) * plan.headers;
}
