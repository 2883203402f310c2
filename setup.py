"""The optional compiled part; everything else about the package is in pyproject.toml.

Built against Python's stable ABI, so one build serves 3.11 and later. Without a compiler the build warns and goes on:
`masque_client.netio.offload` then uses its twin in Python.
"""

from setuptools import Extension, setup

HERE = "masque_client/netio/offload"
SOURCES = ("compiled", "segment", "coalesce", "tun_io", "udp_receive", "udp_send")

setup(
    ext_modules=[
        Extension(
            "masque_client.netio.offload._compiled",
            sources=[f"{HERE}/{name}.c" for name in SOURCES],
            depends=[f"{HERE}/wire.h", f"{HERE}/udp_io.h"],
            extra_compile_args=["-O3", "-std=c11", "-Wall", "-Wextra"],
            py_limited_api=True,
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
