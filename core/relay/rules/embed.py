# SPDX-License-Identifier: Apache-2.0
"""Writes the rules that ship as a C file: reply_rules_text of core/relay/rules.h.

usage: embed.py replies.rules reply_rules_text.c
"""
import sys

with open(sys.argv[1], "rb") as source:
    text = source.read()

with open(sys.argv[2], "w", encoding="ascii") as out:
    out.write("/* Made from core/relay/rules; do not edit. */\n")
    out.write('#include "core/relay/rules.h"\n\nconst char reply_rules_text[] = {\n')
    for start in range(0, len(text), 16):
        out.write("    " + " ".join(f"{byte}," for byte in text[start : start + 16]) + "\n")
    out.write("    0,\n};\n")
    out.write("const size_t reply_rules_text_len = sizeof(reply_rules_text) - 1;\n")
