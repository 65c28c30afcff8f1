# SPDX-License-Identifier: Apache-2.0
"""
opendkim - verifies DKIM signatures with libopendkim, which shares no code with us or with dkimpy.

    with OpenDkim({"sel._domainkey.example.org": "v=DKIM1; ..."}, folder) as verifier:
        assert verifier.passes(message)

The library reads the records from a file instead of from DNS. It was made before RFC 8463: of a
message's signatures it looks at the first that it understands, rsa-sha256.
"""
import ctypes

LIBRARY = "libopendkim.so.11"
OP_SET, OPT_QUERY_METHOD, OPT_QUERY_INFO, QUERY_FILE = 1, 6, 7, 1
STAT_OK = 0


class OpenDkim:
    def __init__(self, records, folder):
        path = folder / "opendkim.keys"
        path.write_text("".join(f"{name} {record}\n" for name, record in records.items()))
        self.c = c = ctypes.CDLL(LIBRARY)
        for name in ("dkim_init", "dkim_verify"):
            getattr(c, name).restype = ctypes.c_void_p
        self.lib = ctypes.c_void_p(c.dkim_init(None, None))
        method = ctypes.c_int(QUERY_FILE)
        info = ctypes.create_string_buffer(str(path).encode())
        assert c.dkim_options(self.lib, OP_SET, OPT_QUERY_METHOD, ctypes.byref(method),
                              ctypes.c_size_t(ctypes.sizeof(method))) == STAT_OK
        assert c.dkim_options(self.lib, OP_SET, OPT_QUERY_INFO, info,
                              ctypes.c_size_t(len(info.value))) == STAT_OK

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.c.dkim_close(self.lib)

    def passes(self, message):
        """True: signed, header and body match."""
        c, status, is_test = self.c, ctypes.c_int(), ctypes.c_bool()
        handle = ctypes.c_void_p(c.dkim_verify(self.lib, b"test", None, ctypes.byref(status)))
        assert handle.value
        try:
            assert c.dkim_chunk(handle, message, ctypes.c_size_t(len(message))) == STAT_OK
            assert c.dkim_chunk(handle, None, ctypes.c_size_t(0)) == STAT_OK
            return c.dkim_eom(handle, ctypes.byref(is_test)) == STAT_OK
        finally:
            c.dkim_free(handle)
