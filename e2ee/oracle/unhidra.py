"""Both sides of the protocol, written from PROTOCOL.md alone, with none of our Rust.

Made to be read beside the text, section by section, and slow. It holds no locks, writes no flash and
wipes nothing: vectors.py computes the files of ../tests/vectors with it, device.py plays the device.
"""
import hashlib, hmac, struct
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

P = 2**255 - 19
X3DH, PQXDH = 1, 2
KEM_KEY, KEM_CIPHERTEXT = 1184, 1088


class Refused(Exception):
    """A message that was not taken, and why; nothing has changed."""


def number(value, size=4):
    return value.to_bytes(size, "big")


def named(device_id):
    return bytes([len(device_id)]) + device_id


# Section 5: primitives.

def dh(secret, key):
    """X25519, refusing an output of zeros, as the library does."""
    try:
        return X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(key))
    except ValueError:
        raise Refused("HostileKey") from None


def public(secret):
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def hkdf(salt, ikm, info, length):
    prk, out, block = hmac.digest(salt, ikm, "sha256"), b"", b""
    while len(out) < length:
        block = hmac.digest(prk, block + info + bytes([len(out) // 32 + 1]), "sha256")
        out += block
    return out[:length]


def kdf_rk(root, agreed):
    both = hkdf(root, agreed, b"unhidra/root/v1", 64)
    return both[:32], both[32:]


def kdf_ck(chain):
    return hmac.digest(chain, b"\x02", "sha256"), hmac.digest(chain, b"\x01", "sha256")


class Identity:
    """Section 1: a seed, its Ed25519 pair, and the same pair in Montgomery form."""

    def __init__(self, seed):
        self.seed = seed
        self.signing = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self.signing.public_key().public_bytes_raw()
        self.dh = hashlib.sha512(seed).digest()[:32]

    def sign(self, label, device_id, text):
        return self.signing.sign(label + named(device_id) + text)


def montgomery(identity):
    y = int.from_bytes(identity, "little") & (1 << 255) - 1
    return ((1 + y) * pow(1 - y, -1, P) % P).to_bytes(32, "little")


def verify(identity, label, device_id, text, signature):
    try:
        Ed25519PublicKey.from_public_bytes(identity).verify(signature, label + named(device_id) + text)
    except InvalidSignature:
        raise Refused("Signature") from None


# Section 4: messages.

class Fields:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, size):
        self.at += size
        return self.data[self.at - size:self.at]

    def number(self, size=4):
        return int.from_bytes(self.take(size), "big")


def bundle(node, device_id, suite, nonce, last_counter, now_s, spk_id, spk, opk_id, opk, kem_key=b""):
    signed = bytes([3, suite]) + nonce + number(last_counter) + number(now_s, 8) + node.public
    signed += number(spk_id) + spk + number(opk_id) + opk + kem_key
    return signed + node.sign(b"unhidra/bundle/v1", device_id, signed)


class Bundle:
    def __init__(self, data, suite):
        if len(data) != {X3DH: 198, PQXDH: 198 + KEM_KEY}[suite] or data[:1] != b"\x03":
            raise Refused("NoBundle")
        f = Fields(data)
        f.take(1)
        if f.number(1) != suite:
            raise Refused("Suite")
        self.nonce, self.last_counter, self.now_s, self.node = f.take(16), f.number(), f.number(8), f.take(32)
        self.spk_id, self.spk, self.opk_id, self.opk = f.number(), f.take(32), f.number(), f.take(32)
        self.kem = f.take(KEM_KEY) if suite == PQXDH else b""
        self.signed, self.signature = data[:-64], data[-64:]

    def check(self, device_id, node, nonce):
        if self.nonce != nonce:
            raise Refused("Nonce")
        if self.node != node:
            raise Refused("Identity")
        verify(node, b"unhidra/bundle/v1", device_id, self.signed, self.signature)


class Message:
    def __init__(self, data):
        if not 57 <= len(data) <= 65535 or data[:1] != b"\x01":
            raise Refused("NoMessage")
        f = Fields(data)
        self.header, f.at = data[:41], 1
        self.key, self.pn, self.n = f.take(32), f.number(), f.number()
        self.sealed, self.tag = data[41:], data[-16:]

    def name(self):
        return self.key[:4], self.n, self.tag[:4]


def head_len(suite):
    return 78 if suite == X3DH else 78 + KEM_CIPHERTEXT


class HandshakeInit:
    def __init__(self, data):
        if len(data) < 2 or data[0] != 2 or data[1] not in (X3DH, PQXDH) or len(data) < head_len(data[1]) + 57:
            raise Refused("NoHandshake")
        f = Fields(data)
        f.take(1)
        self.suite = f.number(1)
        self.head = data[:head_len(self.suite)]
        self.identity, self.ephemeral = f.take(32), f.take(32)
        self.spk_id, self.opk_id, self.counter = f.number(), f.number(), f.number()
        self.kem = f.take(KEM_CIPHERTEXT) if self.suite == PQXDH else b""
        self.message = Message(data[len(self.head):])


def reset_request(node, device_id, reason, ratchet_key):
    signed = bytes([4, reason]) + ratchet_key
    return signed + node.sign(b"unhidra/reset/v1", device_id, signed)


def read_reset(data, device_id, node):
    """The reason and the ratchet key it names."""
    if len(data) != 98 or data[0] != 4 or data[1] not in range(1, 6):
        raise Refused("NoReset")
    verify(node, b"unhidra/reset/v1", device_id, data[:34], data[34:])
    return data[1], data[2:34]


# Section 5: agreement.

def session_key(suite, agreed, kem_secret):
    label = b"unhidra/x3dh/v1" if suite == X3DH else b"unhidra/pqxdh/v1"
    return hkdf(bytes(32), b"\xff" * 32 + agreed + kem_secret, label, 32)


def session_ad(device_id, node, spk, opk, kem_key, head):
    return hashlib.sha256(b"unhidra/sad/v1" + named(device_id) + node + spk + opk + kem_key + head).digest()


# Sections 7 and 9: sessions.

class Role:
    def __init__(self, byte, jump, kept, kept_for_s, steps_at_once):
        self.byte, self.jump, self.kept, self.kept_for_s, self.steps_at_once = byte, jump, kept, kept_for_s, steps_at_once


DEVICE = Role(1, 128, 16, None, False)
NODE = Role(2, 2048, 128, 24 * 3600, True)


class Chain:
    def __init__(self, key, count=0):
        self.key, self.count = key, count

    def to(self, n):
        """The chain before message n, and its key."""
        chain = Chain(self.key, self.count)
        while chain.count < n:
            chain.key, chain.count = kdf_ck(chain.key)[0], chain.count + 1
        return chain, kdf_ck(chain.key)[1]

    def until(self, n):
        """The chain after message n - 1, and the keys on the way to it."""
        chain, keys = Chain(self.key, self.count), []
        while chain.count < n:
            chain.key, key = kdf_ck(chain.key)
            keys.append((chain.count, key))
            chain.count += 1
        return chain, keys


class Session:
    """One side of a session."""

    def __init__(self, role, suite, counter, ephemeral, root, sad, own, peer, now_ms):
        self.role, self.suite, self.counter, self.ephemeral = role, suite, counter, ephemeral[:8]
        self.began_ms = self.since_ms = now_ms
        self.root, self.sad, self.own, self.own_key, self.peer = root, sad, own, public(own), peer
        self.receiving = self.sending = self.old = None
        self.pn = self.answered = 0
        self.kept = []
        self.owed, self.head, self.leased_to, self.owed_at_boot = False, b"", 0, False

    def step(self, draw):
        """A DH step of one's own."""
        self.pn = self.sending.count if self.sending else 0
        self.own = draw(32)
        self.own_key = public(self.own)
        self.root, chain = kdf_rk(self.root, dh(self.own, self.peer))
        self.sending, self.owed = Chain(chain), False

    def knows(self, key):
        return key == self.peer or self.old and self.old[0] == key[:8] or any(k[0] == key[:8] for k in self.kept)

    def keep(self, key, pairs, now_ms):
        self.kept += [(key[:8], n, now_ms // 1000, mk) for n, mk in pairs[-self.role.kept:]]
        self.kept = self.kept[-self.role.kept:]

    def is_fresh(self, kept, now_ms):
        return self.role.kept_for_s is None or now_ms // 1000 - kept[2] <= self.role.kept_for_s

    def decrypt(self, key, message):
        try:
            return ChaCha20Poly1305(key).decrypt(bytes(12), message.sealed, self.sad + message.header)
        except InvalidTag:
            return None

    def open(self, message, now_ms, draw):
        text = self.place(message, now_ms, draw)
        self.kept = [kept for kept in self.kept if self.is_fresh(kept, now_ms)]
        self.answered = self.sending.count if self.sending else 0
        self.head = b""
        return text

    def place(self, message, now_ms, draw):
        key, n = message.key, message.n
        for kept in self.kept:
            if kept[:2] == (key[:8], n) and self.is_fresh(kept, now_ms):
                text = self.decrypt(kept[3], message)
                if text is None:
                    raise Refused("BadTag")
                self.kept.remove(kept)
                return text
        if key == self.peer:
            if self.receiving is None:
                raise Refused("HostileKey")
            if n < self.receiving.count:
                raise Refused("TooOld")
            return self.open_ahead(message, now_ms)
        if self.old and self.old[0] == key[:8]:
            raise Refused("RolledBack" if n >= self.old[1] else "TooOld")
        if any(kept[0] == key[:8] for kept in self.kept):
            raise Refused("TooOld")
        return self.open_new(message, now_ms, draw)

    def open_ahead(self, message, now_ms):
        if message.n - self.receiving.count > self.role.jump:
            raise Refused("TooFar")
        text = self.decrypt(self.receiving.to(message.n)[1], message)
        if text is None:
            raise Refused("BadTag")
        after, pairs = self.receiving.until(message.n + 1)
        self.keep(self.peer, pairs[:-1], now_ms)
        self.receiving = after
        return text

    def open_new(self, message, now_ms, draw):
        if message.n > self.role.jump:
            raise Refused("TooFar")
        if message.key[31] & 0x80 or message.key == self.own_key:
            raise Refused("HostileKey")
        root, key = kdf_rk(self.root, dh(self.own, message.key))
        first = Chain(key)
        text = self.decrypt(first.to(message.n)[1], message)
        if text is None:
            raise Refused("UnknownKey")
        if self.receiving:
            if message.pn - self.receiving.count <= self.role.jump:
                self.keep(self.peer, self.receiving.until(message.pn)[1], now_ms)
            self.old = self.peer[:8], max(self.receiving.count, message.pn)
        self.receiving, pairs = first.until(message.n + 1)
        self.keep(message.key, pairs[:-1], now_ms)
        self.root, self.peer, self.owed = root, message.key, True
        if self.role.steps_at_once:
            self.step(draw)
            self.since_ms = now_ms
        return text

    def seal(self, text):
        self.sending, ((n, key),) = self.sending.until(self.sending.count + 1)
        header = b"\x01" + self.own_key + number(self.pn) + number(n)
        return self.head + header + ChaCha20Poly1305(key).encrypt(bytes(12), text, self.sad + header)

    # The device's part of sections 8 and 9.

    def step_is_due(self, now_ms):
        late = self.sending.count >= 128 or now_ms - self.since_ms >= 600_000
        return self.owed and (self.owed_at_boot or late)

    def lease(self, count, now_ms, draw):
        if self.step_is_due(now_ms):
            self.step(draw)
            self.since_ms, self.leased_to, self.owed_at_boot, self.answered = now_ms, 0, False, 0
        self.leased_to = max(self.leased_to, self.sending.count + count)

    # Section 12: the state record.

    def record(self):
        chain = lambda c: c.key + number(c.count) if c else bytes(36)
        sending = self.sending and self.sending.until(max(self.leased_to, self.sending.count))[0]
        flags = bool(self.sending) | bool(self.receiving) << 1 | bool(self.old) << 2 | self.owed << 3 | bool(self.head) << 4
        out = bytes([1, self.role.byte, self.suite, flags]) + number(self.counter) + self.ephemeral
        out += number(self.began_ms, 8) + number(self.since_ms, 8) + self.root + self.sad + self.own + self.peer
        out += chain(self.receiving) + (self.old[0] + number(self.old[1]) if self.old else bytes(12)) + chain(sending)
        out += number(self.pn) + number(self.answered) + number(len(self.kept), 2)
        return out + b"".join(id + number(n) + number(at) + key for id, n, at, key in self.kept) + self.head

    @classmethod
    def read(cls, record):
        f = Fields(record)
        if f.number(1) != 1:
            raise Refused("Version")
        session = cls.__new__(cls)
        session.role = {1: DEVICE, 2: NODE}[f.number(1)]
        session.suite, flags, session.counter, session.ephemeral = f.number(1), f.number(1), f.number(), f.take(8)
        session.began_ms, session.since_ms = f.number(8), f.number(8)
        session.root, session.sad, session.own, session.peer = f.take(32), f.take(32), f.take(32), f.take(32)
        session.own_key = public(session.own)
        receiving, old = Chain(f.take(32), f.number()), (f.take(8), f.number())
        sending, session.pn, session.answered = Chain(f.take(32), f.number()), f.number(), f.number()
        session.kept = [(f.take(8), f.number(), f.number(), f.take(32)) for _ in range(f.number(2))]
        session.sending, session.receiving = sending if flags & 1 else None, receiving if flags & 2 else None
        session.old, session.owed = old if flags & 4 else None, bool(flags & 8)
        session.head = f.take(head_len(session.suite)) if flags & 16 else b""
        if f.at != len(record):
            raise Refused("Length")
        session.leased_to, session.owed_at_boot = 0, session.owed
        return session

    def receive_record(self):
        return b"\x11" + self.peer[:4] + self.receiving.key + number(self.receiving.count) + number(self.answered)

    def send_record(self):
        chain = self.sending.until(max(self.leased_to, self.sending.count))[0]
        return b"\x12" + self.own_key[:4] + chain.key + number(chain.count)


def begin(device, device_id, suite, taken, own_counter, now_ms, draw, encapsulate=None):
    """The device, with a bundle that was checked. `draw` gives EK, then the ratchet key."""
    counter = max(own_counter, taken.last_counter) + 1
    ek = draw(32)
    head = bytes([2, suite]) + device.public + public(ek)
    head += number(taken.spk_id) + number(taken.opk_id) + number(counter)
    secret = b""
    if suite == PQXDH:
        key = MLKEM768PublicKey.from_public_bytes(taken.kem)
        secret, ciphertext = encapsulate(taken.kem) if encapsulate else key.encapsulate()
        head += ciphertext
    agreed = dh(device.dh, taken.spk) + dh(ek, montgomery(taken.node)) + dh(ek, taken.spk) + dh(ek, taken.opk)
    root = session_key(suite, agreed, secret)
    sad = session_ad(device_id, taken.node, taken.spk, taken.opk, taken.kem, head)
    own = draw(32)
    session = Session(DEVICE, suite, counter, public(ek), root, sad, own, taken.spk, now_ms)
    session.root, chain = kdf_rk(root, dh(own, taken.spk))
    session.sending, session.head = Chain(chain), head
    return session


def respond(node, device_id, enrolled, suite, spk, opk, kem_seed, init, now_ms, draw):
    """The node, with the prekeys the handshake names: a session, and its first message."""
    if init.suite != suite:
        raise Refused("Suite")
    if init.identity != enrolled:
        raise Refused("Identity")
    agreed = dh(spk, montgomery(enrolled)) + dh(node.dh, init.ephemeral) + dh(spk, init.ephemeral) + dh(opk, init.ephemeral)
    secret = kem_key = b""
    if suite == PQXDH:
        pair = MLKEM768PrivateKey.from_seed_bytes(kem_seed)
        secret, kem_key = pair.decapsulate(init.kem), pair.public_key().public_bytes_raw()
    root = session_key(suite, agreed, secret)
    sad = session_ad(device_id, node.public, public(spk), public(opk), kem_key, init.head)
    session = Session(NODE, suite, init.counter, init.ephemeral, root, sad, spk, bytes(32), now_ms)
    return session, session.open(init.message, now_ms, draw)


class Sessions:
    """The present session, the previous one, and the messages opened last."""

    def __init__(self):
        self.present = self.previous = None
        self.recent = []

    def begin(self, session):
        self.present, self.previous = session, self.present

    def check(self, message):
        for key, n, tag in self.recent:
            if (key, n) == message.name()[:2]:
                raise Refused("Duplicate" if tag == message.name()[2] else "RolledBack")

    def remember(self, message):
        self.recent = (self.recent + [message.name()])[-32:]

    def open(self, message, now_ms, draw):
        self.check(message)
        if self.present is None:
            raise Refused("UnknownKey")
        session = self.present
        day = 24 * 3600 * 1000
        if not session.knows(message.key) and self.previous and now_ms - session.began_ms <= day and self.previous.knows(message.key):
            session = self.previous
        text = session.open(message, now_ms, draw)
        self.remember(message)
        return text


# Section 6: plaintexts.

def cbor_head(major, value):
    if value < 24:
        return bytes([major << 5 | value])
    size = next(size for size in (1, 2, 4, 8) if value < 1 << 8 * size)
    return bytes([major << 5 | {1: 24, 2: 25, 4: 26, 8: 27}[size]]) + number(value, size)


def cbor(value):
    if isinstance(value, int):
        return cbor_head(0, value)
    if isinstance(value, bytes):
        return cbor_head(2, len(value)) + value
    text = value.encode()
    return cbor_head(3, len(text)) + text


def padded(encoded):
    size = len(encoded) + 1
    size = next((bucket for bucket in (64, 128, 256, 512, 1024) if size <= bucket), -(-size // 1024) * 1024)
    return (encoded + b"\x80").ljust(size, b"\0")


def plaintext(fields):
    """A map of known keys, padded."""
    return padded(cbor_head(5, len(fields)) + b"".join(cbor(k) + cbor(v) for k, v in sorted(fields.items())))


class Cbor:
    """Reads deterministic CBOR, and refuses every other."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, size):
        if size > len(self.data) - self.at:
            raise Refused("Cbor")
        self.at += size
        return self.data[self.at - size:self.at]

    def item(self, depth=8):
        if depth == 0:
            raise Refused("Cbor")
        first = self.take(1)[0]
        major, info = first >> 5, first & 31
        if info > 27:
            raise Refused("Cbor")
        size = 1 << info - 24 if info > 23 else 0
        raw = self.take(size)
        value = int.from_bytes(raw, "big") if size else info
        if major == 7:
            return self.simple(info, raw, value)
        if size and value < {1: 24, 2: 1 << 8, 4: 1 << 16, 8: 1 << 32}[size]:
            raise Refused("Cbor")
        if major in (0, 1):
            return value if major == 0 else -1 - value
        if major == 2:
            return self.take(value)
        if major == 3:
            try:
                return self.take(value).decode()
            except UnicodeDecodeError:
                raise Refused("Cbor") from None
        if major == 4:
            return ("array", [self.item(depth - 1) for _ in range(value)])
        if major == 6:
            return ("tag", self.item(depth - 1))
        return ("map", self.entries(value, depth - 1))

    def entries(self, count, depth):
        entries, last = [], None
        for _ in range(count):
            at = self.at
            key = self.item(depth)
            if last is not None and self.data[at:self.at] <= last:
                raise Refused("Cbor")
            last = self.data[at:self.at]
            entries.append((key, self.item(depth)))
        return entries

    @staticmethod
    def simple(info, raw, value):
        shorter = {26: (">f", ">e"), 27: (">d", ">f")}
        if info == 24 and value < 32:
            raise Refused("Cbor")
        if info in shorter:
            long, short = shorter[info]
            number = struct.unpack(long, raw)[0]
            try:
                fits = number != number or struct.unpack(short, struct.pack(short, number))[0] == number
            except OverflowError:
                fits = False
            if fits:
                raise Refused("Cbor")
        return ("simple", raw or value)


TYPES = {0: int, 1: str, 2: int, 3: bytes, 4: bytes, 5: int, 6: int, 7: int, 8: int, 9: int, 10: int}


def read_plaintext(data):
    """The known keys of a plaintext."""
    cbor = Cbor(data)
    first = cbor.take(1)[0]
    if first >> 5 != 5:
        raise Refused("Cbor")
    cbor.at = 0
    # The map itself is no value: its values nest up to 8 levels.
    _, entries = cbor.item(9)
    known = {}
    for key, value in entries:
        if type(key) is int and key in TYPES:
            right = type(value) is TYPES[key] and not (type(value) is int and value < 0)
            if not right or key == 4 and len(value) != 16 or key == 5 and value > 4:
                raise Refused("Value")
            known[key] = value
    if 0 not in known:
        raise Refused("NoKind")
    if padded(data[:cbor.at]) != data:
        raise Refused("Padding")
    return known
