#!/usr/bin/env python3
"""Public keys and signatures nobody honest makes, computed from the curve alone.

  python3 hostile_vectors.py > ../tests/vectors/hostile.json
"""
import hashlib, json

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
I = pow(2, (P - 1) // 4, P)
HIGH = 1 << 255
DEVICE = b"pump-7"


def x_of(y, sign):
    """RFC 8032 section 5.1.3; None where y is on no point."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * I % P
    if (x * x - square) % P:
        return None
    return P - x if x % 2 != sign and x else x


def add(a, b):
    (x1, y1), (x2, y2) = a, b
    k = D * x1 * x2 * y1 * y2 % P
    return (x1 * y2 + x2 * y1) * pow(1 + k, -1, P) % P, (y1 * y2 + x1 * x2) * pow(1 - k, -1, P) % P


def times(n, point):
    out = (0, 1)
    while n:
        if n & 1:
            out = add(out, point)
        point, n = add(point, point), n >> 1
    return out


def encode(point, more=0):
    """`more` of P stands for an encoding that is not canonical."""
    x, y = point
    return (y + more | (x & 1) << 255).to_bytes(32, "little")


def scalar(seed):
    low = int.from_bytes(hashlib.sha512(seed).digest()[:32], "little")
    return low & ((1 << 254) - 8) | 1 << 254


B = (x_of(4 * pow(5, -1, P) % P, 0), 4 * pow(5, -1, P) % P)
# A point of order 8: L times some point that is of no smaller order.
T8 = next(t for t in (times(L, (x_of(y, 0), y)) for y in range(2, 99) if x_of(y, 0)) if times(4, t) != (0, 1))
SMALL = [times(n, T8) for n in range(8)]


def montgomery(point):
    return (1 + point[1]) * pow(1 - point[1], -1, P) % P if point[1] != 1 else 0


def x25519():
    small = sorted({montgomery(point) for point in SMALL} | {P - 1})  # P - 1 is of order 4 on the twist
    low_order = small + [u + P for u in small if u + P < HIGH]
    low_order += [u | HIGH for u in low_order]
    # On the curve or its twist, of large order, and encoded as nobody encodes: u + p for a small u.
    not_canonical = [u + P for u in range(2, 19)]
    plain = lambda keys: [key.to_bytes(32, "little").hex() for key in keys]
    return dict(low_order=plain(low_order), not_canonical=plain(not_canonical))


def ed25519(node_seed):
    small = {encode(point) for point in SMALL}
    # x = 0 with a sign; y at or above p.
    small |= {bytes(key[:31]) + bytes([key[31] | 0x80]) for key in [encode((0, 1)), encode((0, P - 1))]}
    small |= {(y + P | sign << 255).to_bytes(32, "little") for y in (0, 1) for sign in (0, 1)}
    not_canonical = [
        (y + P | sign << 255).to_bytes(32, "little") for y in range(2, 19) for sign in (0, 1) if x_of(y, sign)
    ]
    key = times(scalar(node_seed), B)
    mixed = [encode(add(key, point)) for point in SMALL[1:]]
    return dict(
        small_order=sorted(key.hex() for key in small),
        not_canonical=[key.hex() for key in not_canonical],
        mixed_order_of_node=[key.hex() for key in mixed],
    )


def signatures(seed, reset):
    """Of a ResetRequest; a check that is not strict takes some of them."""
    secret, prefix = scalar(seed), hashlib.sha512(seed).digest()[32:]
    public = encode(times(secret, B))
    text = b"unhidra/reset/v1" + bytes([len(DEVICE)]) + DEVICE + reset
    number = lambda *parts: int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little") % L
    r = number(prefix, text)
    honest = encode(times(r, B))
    s = (r + number(honest, public, text) * secret) % L
    out = dict(honest=honest + s.to_bytes(32, "little"), s_above_order=honest + (s + L).to_bytes(32, "little"))
    # R of small order: the equation holds where the order divides what multiplies the rest.
    for at, point in enumerate(SMALL):
        small = encode(point)
        out[f"small_r_{at}"] = small + (number(small, public, text) * secret % L).to_bytes(32, "little")
    for at, point in enumerate(SMALL[1:], 1):
        mixed = encode(add(times(r, B), point))
        out[f"mixed_r_{at}"] = mixed + ((r + number(mixed, public, text) * secret) % L).to_bytes(32, "little")
    identity_with_sign = bytes([1]) + bytes(30) + bytes([0x80])
    out["r_not_canonical"] = identity_with_sign + (number(identity_with_sign, public, text) * secret % L).to_bytes(32, "little")
    return {name: (reset + signature).hex() for name, signature in out.items()}


def main():
    seed = hashlib.sha256(b"vector node").digest()
    reset = b"\x04\x02" + hashlib.sha256(b"vector reset").digest()
    print(json.dumps(dict(
        device_id=DEVICE.decode(), node_seed=seed.hex(), node=encode(times(scalar(seed), B)).hex(),
        x25519=x25519(), ed25519=ed25519(seed), reset_requests=signatures(seed, reset)), indent=1))


main()
