#!/usr/bin/env python3
"""Safety numbers, computed from PROTOCOL.md section 14 alone, with none of our Rust.

  pip install cryptography
  python3 fingerprint_vector.py > ../tests/vectors/fingerprint.json
"""
import hashlib, json
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def identity(name):
    seed = hashlib.sha256(b"vector " + name).digest()
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def half(side, named, key):
    return hashlib.sha256(b"unhidra/fingerprint/v1" + bytes([side]) + named + key).digest()


def digits(half):
    return [f"{int.from_bytes(half[at:at + 5], 'big') % 100_000:05}" for at in range(0, 30, 5)]


def vector(device_id, device, node):
    named = bytes([len(device_id)]) + device_id
    halves = half(1, named, device), half(2, b"", node)
    groups = [group for half in halves for group in digits(half)]
    text = "\n".join(" ".join(groups[at:at + 4]) for at in range(0, 12, 4))
    code = "UNHIDRA:1:" + ":".join(half.hex().upper() for half in halves)
    return dict(device_id=device_id.decode(), device=device.hex(), node=node.hex(), text=text, code=code)


def main():
    device, node = identity(b"device"), identity(b"node")
    vectors = [
        vector(b"pump-7", device, node),
        # The same key under another name, another key, another node; the shortest and the longest name.
        vector(b"pump-8", device, node),
        vector(b"pump-7", identity(b"other device"), node),
        vector(b"pump-7", device, identity(b"other node")),
        vector(b"a", device, node),
        vector(b"x" * 64, device, node),
    ]
    # Groups that begin with zeros are where a printing goes wrong.
    names = (b"z%d" % n for n in range(10_000))
    zeros = next(v for v in (vector(n, device, node) for n in names) if any(g.startswith("00") for g in v["text"].split()))
    print(json.dumps(vectors + [zeros], indent=1))


main()
