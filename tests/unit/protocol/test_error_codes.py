from masque_client.protocol.error_codes import H3ErrorCode, describe


def test_known_code_has_its_name():
    assert describe(0x107) == "H3_EXCESSIVE_LOAD (0x107)"
    assert H3ErrorCode(0x33) is H3ErrorCode.H3_DATAGRAM_ERROR


def test_unknown_code_is_just_a_number():
    assert describe(0xBEEF) == "0xbeef"
