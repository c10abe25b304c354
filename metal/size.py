"""Prints what of an ELF image lies in flash and in memory: size.py FEATURES IMAGE"""

import json
import struct
import sys


def sections(path):
    with open(path, "rb") as file:
        elf = file.read()
    if elf[:5] != b"\x7fELF\x01":
        sys.exit(f"{path} is no 32-bit ELF")
    at, = struct.unpack_from("<I", elf, 32)
    entry, count, names = struct.unpack_from("<HHH", elf, 46)
    headers = [struct.unpack_from("<IIIIII", elf, at + entry * i) for i in range(count)]
    base = headers[names][4]
    for name, _, _, _, _, size in headers:
        yield elf[base + name : elf.index(b"\0", base + name)].decode(), size


features, path = sys.argv[1:]
sizes = dict(sections(path))
row = {"features": features} | {name.lstrip("."): sizes.get(name, 0) for name in (".text", ".rodata", ".data", ".bss")}
print(f"features {features}: .text {row['text']}, .rodata {row['rodata']}, .data {row['data']}, .bss {row['bss']} bytes")
print(json.dumps(row))
