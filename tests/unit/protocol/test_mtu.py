import pytest

from masque_client.protocol import mtu

# Header sizes a connection may have (RFC 9484 §7.2; RFC 9000 §17.3.1).
P8 = {"connection_id_length": 8}
P20 = {"connection_id_length": 20}
P0 = {"connection_id_length": 0}
WORST = {
    "connection_id_length": 20, "packet_number_length": 4, "length_field": 0, "quarter_stream_id_length": 8,
}  # fmt: skip
WORST_WITH_LENGTH = {**WORST, "length_field": 2}
PROFILES = [P8, P20, P0, WORST, WORST_WITH_LENGTH]

# outer UDP payload: outer IPv4 packet, outer IPv6 packet, then the largest inner packet per profile
TABLE = {
    1200: (1228, 1248, 1168, 1156, 1176, 1149, 1147),
    1232: (1260, 1280, 1200, 1188, 1208, 1181, 1179),
    1252: (1280, 1300, 1220, 1208, 1228, 1201, 1199),
    1312: (1340, 1360, 1280, 1268, 1288, 1261, 1259),
    1324: (1352, 1372, 1292, 1280, 1300, 1273, 1271),
    1331: (1359, 1379, 1299, 1287, 1307, 1280, 1278),
    1333: (1361, 1381, 1301, 1289, 1309, 1282, 1280),
    1350: (1378, 1398, 1318, 1306, 1326, 1299, 1297),
    1372: (1400, 1420, 1340, 1328, 1348, 1321, 1319),
    1432: (1460, 1480, 1400, 1388, 1408, 1381, 1379),
    1452: (1480, 1500, 1420, 1408, 1428, 1401, 1399),
    1472: (1500, 1520, 1440, 1428, 1448, 1421, 1419),
}


@pytest.mark.parametrize(("udp_payload", "row"), TABLE.items())
def test_table(udp_payload, row):
    outer_v4, outer_v6, *inner = row
    assert mtu.udp_payload_for_link(outer_v4, 4) == udp_payload
    assert mtu.udp_payload_for_link(outer_v6, 6) == udp_payload
    assert [mtu.inner_max(udp_payload, **profile) for profile in PROFILES] == inner


def test_peers_frame_limit_counts_the_whole_frame():
    assert mtu.inner_max(1472, peer_max_datagram_frame_size=1200) == 1195
    assert mtu.inner_max(1200, peer_max_datagram_frame_size=65535) == 1168


def test_http_datagram_includes_the_context_id():
    assert mtu.max_http_datagram(1350) == mtu.inner_max(1350) + 1
    assert mtu.inner_max(1350, context_id_length=2) == mtu.inner_max(1350) - 1


def test_never_negative():
    assert mtu.inner_max(20) == mtu.inner_max(1350, peer_max_datagram_frame_size=0) == 0
    assert mtu.udp_payload_for_link(10, 6) == 0


def test_ipv6_capable_payload_holds_for_any_header():
    assert mtu.inner_max(mtu.IPV6_CAPABLE_UDP_PAYLOAD, **WORST) == mtu.MIN_IPV6_MTU
    assert mtu.inner_max(mtu.DEFAULT_UDP_PAYLOAD, **WORST) >= mtu.MIN_IPV6_MTU


@pytest.mark.parametrize(
    ("link_mtu", "ip_version", "candidates"),
    [
        (None, 4, (1350, 1252)),
        (None, 6, (1350, 1232)),
        (1500, 4, (1472, 1350, 1252)),
        (1500, 6, (1452, 1350, 1232)),
        (65536, 4, (1472, 1350, 1252)),
        (9000, 6, (1452, 1350, 1232)),
        (1420, 4, (1392, 1350, 1252)),
        (1378, 4, (1350, 1252)),
        (1300, 4, (1272, 1252)),
        (1280, 6, (1232,)),
        (1000, 4, (1200,)),
    ],
)
def test_initial_candidates(link_mtu, ip_version, candidates):
    assert mtu.initial_udp_payload_candidates(link_mtu, ip_version) == candidates
