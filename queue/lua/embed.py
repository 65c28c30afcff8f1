# SPDX-License-Identifier: Apache-2.0
"""Writes the Lua library as a C file: queue_lua and queue_lua_len of queue/schema.h.

usage: embed.py kilat.lua enqueue.lua ... queue_lua.c     the sources in the order of the library
"""
import sys

text = b""
for name in sys.argv[1:-1]:
    with open(name, "rb") as source:
        text += source.read() + b"\n"

with open(sys.argv[-1], "w", encoding="ascii") as out:
    out.write("/* Made from queue/lua; do not edit. */\n")
    out.write('#include "queue/schema.h"\n\nconst char queue_lua[] = {\n')
    for start in range(0, len(text), 16):
        out.write("    " + " ".join(f"{byte}," for byte in text[start : start + 16]) + "\n")
    out.write("    0,\n};\n")
    out.write("const size_t queue_lua_len = sizeof(queue_lua) - 1;\n")
