#!/usr/bin/env python3
"""A first contact, computed from PROTOCOL.md sections 4 and 5 alone, with none of our Rust.

  pip install -r requirements.txt
  python3 handshake_vector.py 1 > ../tests/vectors/handshake.json
  python3 handshake_vector.py 2 > ../tests/vectors/handshake-pqxdh.json

The transcripts of ratchet_oracle.py know nothing of bundles, heads, SAD and labels; this does. Of
ML-KEM-768, kyber-py encapsulates, since it takes the random m; cryptography makes the pair of the
seed and must agree.
"""
import hashlib, hmac, json, struct, sys
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from kyber_py.ml_kem import ML_KEM_768

DEVICE = b"pump-7"


def key(name):
    return hashlib.sha256(b"vector " + name).digest()


def dh(private, public):
    return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))


def public(private):
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


class Identity:
    def __init__(self, seed):
        self.seed = seed
        self.signing = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self.signing.public_key().public_bytes_raw()
        # RFC 8032 section 5.1.5: the scalar is the first half of the hash; X25519 clamps it alike.
        self.private_dh = hashlib.sha512(seed).digest()[:32]
        self.public_dh = public(self.private_dh)

    def sign(self, label, text):
        return self.signing.sign(label + bytes([len(DEVICE)]) + DEVICE + text)


def hkdf(salt, ikm, info, length):
    prk, out, block = hmac.digest(salt, ikm, "sha256"), b"", b""
    while len(out) < length:
        block = hmac.digest(prk, block + info + bytes([len(out) // 32 + 1]), "sha256")
        out += block
    return out[:length]


def root_step(root, agreed):
    both = hkdf(root, agreed, b"unhidra/root/v1", 64)
    return both[:32], both[32:]


def message(chain, sad, ratchet_key, text):
    header = b"\x01" + ratchet_key + struct.pack(">II", 0, 0)
    return header + ChaCha20Poly1305(hmac.digest(chain, b"\x01", "sha256")).encrypt(bytes(12), text, sad + header)


def kem(seed, m):
    """Public key, ciphertext and shared secret of FIPS 203."""
    pair = MLKEM768PrivateKey.from_seed_bytes(seed)
    public_key = pair.public_key().public_bytes_raw()
    secret, ciphertext = ML_KEM_768._encaps_internal(public_key, m)
    assert pair.decapsulate(ciphertext) == secret
    return public_key, ciphertext, secret


def main(suite):
    device, node = Identity(key(b"device")), Identity(key(b"node"))
    spk, opk, ek = key(b"spk"), key(b"opk"), key(b"ek")
    device_ratchet, node_ratchet = key(b"device ratchet"), key(b"node ratchet")
    nonce, last_counter, now_s, spk_id, opk_id = key(b"nonce")[:16], 6, 1_900_000_000, 3, 70_000

    kem_seed, kem_m = key(b"kem d") + key(b"kem z"), key(b"kem m")
    kem_key, kem_ciphertext, kem_secret = kem(kem_seed, kem_m) if suite == 2 else (b"", b"", b"")
    label = {1: b"unhidra/x3dh/v1", 2: b"unhidra/pqxdh/v1"}[suite]

    bundle = bytes([3, suite]) + nonce + struct.pack(">IQ", last_counter, now_s) + node.public
    bundle += struct.pack(">I", spk_id) + public(spk) + struct.pack(">I", opk_id) + public(opk) + kem_key
    bundle += node.sign(b"unhidra/bundle/v1", bundle)

    head = bytes([2, suite]) + device.public + public(ek) + struct.pack(">III", spk_id, opk_id, last_counter + 1)
    head += kem_ciphertext
    agreed = dh(device.private_dh, public(spk)) + dh(ek, node.public_dh) + dh(ek, public(spk)) + dh(ek, public(opk))
    sk = hkdf(bytes(32), b"\xff" * 32 + agreed + kem_secret, label, 32)
    sad = hashlib.sha256(
        b"unhidra/sad/v1" + bytes([len(DEVICE)]) + DEVICE + node.public + public(spk) + public(opk) + kem_key + head
    ).digest()
    root, up = root_step(sk, dh(device_ratchet, public(spk)))
    init = head + message(up, sad, public(device_ratchet), b"first")
    root, down = root_step(root, dh(node_ratchet, public(device_ratchet)))
    answer = message(down, sad, public(node_ratchet), b"hello")

    reset = b"\x04\x02" + public(device_ratchet)
    reset += node.sign(b"unhidra/reset/v1", reset)
    given = dict(device_id=DEVICE.decode(), device_seed=device.seed, node_seed=node.seed, spk=spk, opk=opk, ek=ek,
                 device_ratchet=device_ratchet, node_ratchet=node_ratchet, nonce=nonce, last_counter=last_counter,
                 now_s=now_s, spk_id=spk_id, opk_id=opk_id)
    if suite == 2:
        given.update(kem_seed=kem_seed, kem_m=kem_m)
    expected = dict(bundle=bundle, handshake_init=init, answer=answer, reset=reset)
    plain = lambda table: {k: v.hex() if isinstance(v, bytes) else v for k, v in table.items()}
    print(json.dumps(dict(given=plain(given), expected=plain(expected)), indent=1))


main(int(sys.argv[1]))
