#!/usr/bin/env python3
"""Writes the test vectors, computed by unhidra.py, that is, from PROTOCOL.md alone.

  pip install -r requirements.txt
  python3 vectors.py ../tests/vectors

Every secret comes from a name or a seed, so that a second run writes the same bytes.
"""
import hashlib, json, os, random, sys
from kyber_py.ml_kem import ML_KEM_768
from unhidra import *

DEVICE_ID = b"pump-7"
NOON = 1_900_000_000_000
LEASE = 8


def secret(name):
    return hashlib.sha256(b"vector " + name).digest()


def plain(value):
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value


class Keys:
    """Gives out secrets in order, and remembers them."""

    def __init__(self, name):
        self.name, self.given = name, []

    def __call__(self, _):
        self.given.append(secret(b"%s %d" % (self.name, len(self.given))))
        return self.given[-1]


class World:
    """A device, a node, and what each was given."""

    def __init__(self, suite, name=b""):
        self.suite = suite
        self.device, self.node = Identity(secret(name + b"device")), Identity(secret(name + b"node"))
        self.spk, self.opk, self.spk_id, self.opk_id = secret(name + b"spk"), secret(name + b"opk"), 3, 70_000
        self.kem_seed = secret(name + b"kem d") + secret(name + b"kem z") if suite == PQXDH else b""
        self.kem_m = secret(name + b"kem m") if suite == PQXDH else b""
        self.kem_key = ML_KEM_768._keygen_internal(self.kem_seed[:32], self.kem_seed[32:])[0] if suite == PQXDH else b""

    def given(self):
        given = dict(device_id=DEVICE_ID.decode(), device_seed=self.device.seed, node_seed=self.node.seed, spk_id=self.spk_id,
                     spk=self.spk, opk_id=self.opk_id, opk=self.opk)
        return given | (dict(kem_seed=self.kem_seed, kem_m=self.kem_m) if self.suite == PQXDH else {})

    def bundle(self, nonce, last_counter, now_s, device_id=DEVICE_ID, node=None):
        return bundle(node or self.node, device_id, self.suite, nonce, last_counter, now_s, self.spk_id, public(self.spk),
                      self.opk_id, public(self.opk), self.kem_key)

    def encapsulate(self, key):
        return ML_KEM_768._encaps_internal(key, self.kem_m)

    def begin(self, taken, own_counter, now_ms, draw):
        return begin(self.device, DEVICE_ID, self.suite, taken, own_counter, now_ms, draw, self.encapsulate)

    def respond(self, init, now_ms, draw):
        return respond(self.node, DEVICE_ID, self.device.public, self.suite, self.spk, self.opk, self.kem_seed, init, now_ms, draw)


def handshake(suite):
    """A first contact: bundle, first message, answer, and a ResetRequest."""
    world = World(suite)
    ek, device_ratchet, node_ratchet = secret(b"ek"), secret(b"device ratchet"), secret(b"node ratchet")
    nonce, last_counter = secret(b"nonce")[:16], 6
    sent = world.bundle(nonce, last_counter, NOON // 1000)
    taken = Bundle(sent, suite)
    taken.check(DEVICE_ID, world.node.public, nonce)
    device = world.begin(taken, 0, NOON, lambda _, keys=iter([ek, device_ratchet]): next(keys))
    agreed = [dh(world.device.dh, taken.spk), dh(ek, montgomery(taken.node)), dh(ek, taken.spk), dh(ek, taken.opk)]
    kem_secret, kem_ciphertext = world.encapsulate(taken.kem) if suite == PQXDH else (b"", b"")
    between = dict(dh1=agreed[0], dh2=agreed[1], dh3=agreed[2], dh4=agreed[3], sk=session_key(suite, b"".join(agreed), kem_secret))
    between |= dict(kem_secret=kem_secret, kem_ciphertext=kem_ciphertext) if suite == PQXDH else {}
    between |= dict(sad=device.sad, root_key=device.root, sending_chain_key=device.sending.key,
                    message_key=kdf_ck(device.sending.key)[1])
    init = device.seal(b"first")
    node, text = world.respond(HandshakeInit(init), NOON, lambda _: node_ratchet)
    assert text == b"first"
    answer = node.seal(b"hello")
    assert device.open(Message(answer), NOON, None) == b"hello"
    given = world.given() | dict(ek=ek, device_ratchet=device_ratchet, node_ratchet=node_ratchet, nonce=nonce,
                                 last_counter=last_counter, now_s=NOON // 1000, first_text=b"first", answer_text=b"hello")
    reset = reset_request(world.node, DEVICE_ID, 2, public(device_ratchet))
    expected = dict(request=bytes([suite]) + nonce, bundle=sent, handshake_init=init, answer=answer, reset=reset) | between
    return dict(suite=suite, given=given, expected=expected)


class Talk:
    """A conversation, event by event."""

    def __init__(self, suite):
        self.world, self.now, self.events = World(suite, b"talk "), NOON, []
        self.sides = dict(device=Sessions(), node=Sessions())
        self.keys = dict(device=Keys(b"talk device"), node=Keys(b"talk node"))
        self.lease = None
        self.opened = set()

    def note(self, who, do, **fields):
        session = self.sides[who].present
        keys, self.keys[who].given[:] = self.keys[who].given[:], []
        self.keys[who].name += b"'"
        event = dict(do=do, who=who, now_ms=self.now) | fields
        self.events.append(event | (dict(new_keys=keys) if keys else {}) | dict(state=session.record()))

    def begin(self):
        nonce = secret(b"talk nonce")[:16]
        sent = self.world.bundle(nonce, 0, self.now // 1000)
        taken = Bundle(sent, self.world.suite)
        taken.check(DEVICE_ID, self.world.node.public, nonce)
        self.sides["device"].begin(self.world.begin(taken, 0, self.now, self.keys["device"]))
        self.note("device", "begin", bundle=sent, nonce=nonce)

    def seal(self, who, text):
        session = self.sides[who].present
        if who == "device":
            covered = self.lease and self.lease[0] == session.own_key and session.sending.count < self.lease[1]
            if not covered or session.step_is_due(self.now):
                session.lease(LEASE, self.now, self.keys["device"])
                self.lease = session.own_key, session.sending.count + LEASE
        envelope = session.seal(text)
        self.note(who, "seal", text=text, envelope=envelope)
        return text, envelope

    def open(self, who, sealed):
        text, envelope = sealed
        sessions = self.sides[who]
        try:
            if envelope[0] == 2 and sessions.present is None:
                init = HandshakeInit(envelope)
                session, found = self.world.respond(init, self.now, self.keys[who])
                sessions.begin(session)
                sessions.remember(init.message)
            else:
                message = HandshakeInit(envelope).message if envelope[0] == 2 else Message(envelope)
                found = sessions.open(message, self.now, self.keys[who])
        except Refused as refused:
            self.note(who, "open", envelope=envelope, error=refused.args[0])
            return refused.args[0]
        assert found == text and envelope not in self.opened
        self.opened.add(envelope)
        self.note(who, "open", envelope=envelope, text=found)
        return None

    def reboot(self, who):
        session = self.sides[who].present
        self.sides[who].present = Session.read(session.record())
        if who == "device":
            self.lease = None
        self.note(who, "reboot")

    def later(self, seconds):
        self.now += 1000 * seconds


def forged(sealed, at, byte):
    text, envelope = sealed
    return text, envelope[:at] + bytes([envelope[at] ^ byte]) + envelope[at + 1:]


def at_number(sealed, n):
    text, envelope = sealed
    return text, envelope[:37] + number(n) + envelope[41:]


def talk(suite):
    t = Talk(suite)
    expect = lambda found, error: found == error or sys.exit(f"{found} for {error}, event {len(t.events)}")
    t.begin()
    a = [t.seal("device", b"up %d" % n) for n in range(4)]
    expect(t.open("node", a[1]), None)          # the first to arrive is not the first sealed
    expect(t.open("node", a[0]), None)
    expect(t.open("node", a[0]), "Duplicate")
    t.reboot("device")                          # a power cut before the node has answered: the head stays
    a.append(t.seal("device", b"after a power cut"))
    expect(t.open("node", a[4]), None)
    hello = t.seal("node", b"hello")
    expect(t.open("device", forged(hello, len(hello[1]) - 1, 1)), "UnknownKey")
    expect(t.open("device", hello), None)       # the head goes; the step is owed
    a.append(t.seal("device", b"owed"))
    expect(t.open("node", forged(a[5], 45, 4)), "BadTag")
    expect(t.open("node", a[5]), None)
    t.later(600)
    stepped = t.seal("device", b"stepped after ten minutes")
    down = [t.seal("node", b"down %d" % n) for n in range(3)]
    expect(t.open("device", down[2]), None)
    expect(t.open("node", stepped), None)
    expect(t.open("node", a[3]), None)          # of the old chain, its key kept
    expect(t.open("node", at_number(stepped, 0x40)), "BadTag")
    old = a[5][1]
    expect(t.open("node", (b"", old[:37] + number(0xFFFF) + old[41:])), "RolledBack")
    more = [t.seal("node", b"more %d" % n) for n in range(20)]
    expect(t.open("device", down[0]), None)
    expect(t.open("device", more[19]), None)    # 19 skipped, 16 kept, the oldest gone
    expect(t.open("device", more[2]), "TooOld")
    expect(t.open("device", more[4]), None)
    expect(t.open("device", at_number(more[4], 0xFF)), "TooFar")
    expect(t.open("device", (b"", more[5][1][:1] + bytes([1]) + bytes(31) + more[5][1][33:])), "HostileKey")
    t.reboot("node")
    expect(t.open("device", more[5]), None)
    b = [t.seal("device", b"b %d" % n) for n in range(3)]
    expect(t.open("node", b[2]), None)
    t.later(24 * 3600)
    expect(t.open("node", b[0]), None)          # on its last second
    t.later(1)
    expect(t.open("node", b[1]), "TooOld")
    t.reboot("device")
    c = [t.seal("device", b"c %d" % n) for n in range(40)]
    expect(t.open("node", c[39]), None)
    expect(t.open("node", (b"", c[0][1][:1] + bytes([c[0][1][1] ^ 1]) + c[0][1][2:])), "UnknownKey")
    high = c[0][1][:32] + bytes([c[0][1][32] | 0x80]) + c[0][1][33:]
    expect(t.open("node", (b"", high)), "BadTag")   # eight bytes of a chain of which keys are kept
    expect(t.open("node", (b"", high[:1] + bytes([high[1] ^ 1]) + high[2:])), "HostileKey")
    expect(t.open("node", at_number(c[0], 2088)), "BadTag")
    expect(t.open("node", at_number(c[0], 2089)), "TooFar")
    # And then as it comes.
    rng, flying = random.Random(suite), dict(device=[], node=[])
    for event in range(120):
        who, other = rng.choice([("device", "node"), ("node", "device")])
        match rng.randrange(20):
            case 0:
                t.reboot(who)
            case 1:
                t.later(rng.randrange(500))
            case 2 if flying[who]:
                flying[who].pop(rng.randrange(len(flying[who])))
            case n if n < 10 and len(flying[other]) < 6 and t.sides[who].present.sending:
                flying[other].append(t.seal(who, rng.randbytes(rng.randrange(40))))
            case n if flying[who]:
                at = rng.randrange(len(flying[who]))
                sealed = flying[who][at] if rng.random() < 0.2 else flying[who].pop(at)
                error = t.open(who, sealed)
                assert error in (None, "Duplicate", "TooOld", "UnknownKey"), error
    return dict(suite=suite, given=t.world.given() | dict(last_counter=0, lease=LEASE), events=t.events), t


def hashed(event):
    """The state is long, and is to be the same: its hash tells."""
    event = dict(event)
    return event | dict(state_sha256=hashlib.sha256(event.pop("state")).digest())


def fields(record):
    s = Session.read(record)
    sending, receiving = s.sending, s.receiving
    return dict(role=["", "device", "node"][s.role.byte], suite=s.suite, counter=s.counter, began_ms=s.began_ms,
                chain_since_ms=s.since_ms, root_key=s.root, sad=s.sad, own_secret=s.own, own_key=s.own_key, peer_key=s.peer,
                next_number=sending.count if sending else None, receive_count=receiving.count if receiving else None,
                old_count=s.old[1] if s.old else None, previous_chain_len=s.pn, answered=s.answered, step_owed=s.owed,
                skipped=[dict(key=id, number=n, kept_at_s=at) for id, n, at, _ in s.kept], head_len=len(s.head))


def states(talks):
    out = []
    wanted = {
        "unconfirmed": lambda s: s.head and not s.kept,
        "with skipped keys": lambda s: s.kept and not s.head,
        "with an old chain": lambda s: s.old and not s.kept,
        "owing a step": lambda s: s.owed and not s.kept,
        "plain": lambda s: not (s.old or s.kept or s.head or s.owed),
    }
    for told, _ in talks:
        for role in (1, 2):
            for name, holds in wanted.items():
                records = (event["state"] for event in told["events"] if event["state"][1] == role)
                record = next((record for record in records if holds(Session.read(record))), None)
                if record:
                    out.append(dict(name=name, version=1, whole=record, fields=fields(record)))
    for suite in (X3DH, PQXDH):
        out += chain_records(suite)
    return out


def chain_records(suite):
    """A whole, what each chain has become since, and what was left behind by an older write."""
    t = Talk(suite)
    t.begin()
    t.open("node", t.seal("device", b"first"))
    t.open("device", t.seal("node", b"hello"))
    out = []
    for who, other in (("device", "node"), ("node", "device")):
        session = t.sides[who].present
        whole = session.record()
        stale = dict(receive=session.receive_record(), send=session.send_record())
        t.open(who, t.seal(other, b"in order"))
        t.open(other, t.seal(who, b"sent"))
        if who == "device":
            session.lease(LEASE, t.now, t.keys["device"])
        fresh = dict(receive=session.receive_record(), send=session.send_record())
        after = session.record()
        for name, records in (("overtaken by chain records", fresh), ("beside chain records left behind", stale)):
            out.append(dict(name=name, version=1, whole=whole) | records | dict(merged=after if records is fresh else whole))
    return out


def bundles():
    out = []
    for suite in (X3DH, PQXDH):
        world, nonce = World(suite), secret(b"nonce")[:16]
        good = world.bundle(nonce, 6, NOON // 1000)
        taken = Bundle(good, suite)
        said = {name: getattr(taken, name) for name in ("last_counter", "now_s", "spk_id", "spk", "opk_id", "opk")}
        said |= dict(kem=taken.kem) if taken.kem else {}
        base = dict(device_id=DEVICE_ID.decode(), node=world.node.public, nonce=nonce)
        case = lambda name, **other: out.append(base | dict(suite=suite, name=name) | other)
        case("good", bundle=good, fields=said)
        case("of another request", bundle=good, nonce=secret(b"other")[:16], error="Nonce")
        case("for another device", bundle=good, device_id="pump-8", error="Signature")
        case("for a device whose id begins alike", bundle=good, device_id="pump-70", error="Signature")
        case("of another node", bundle=world.bundle(nonce, 6, 0, node=Identity(secret(b"other"))), error="Identity")
        case("signed by another node", bundle=good[:-64] + world.bundle(nonce, 6, 0, node=Identity(secret(b"other")))[-64:], error="Signature")
        reset = world.node.sign(b"unhidra/reset/v1", DEVICE_ID, good[:-64])
        case("signed for another purpose", bundle=good[:-64] + reset, error="Signature")
        for at in (18, 66, 102, len(good) - 65, len(good) - 1):
            case(f"byte {at} damaged", bundle=good[:at] + bytes([good[at] ^ 1]) + good[at + 1:], error="Signature")
        case("one byte short", bundle=good[:-1], error="TooShort")
        case("one byte long", bundle=good + b"\0", error="TooLong")
        case("of a suite there is not", bundle=good[:1] + b"\x03" + good[2:], error="UnknownSuite")
    return out


def resets():
    world, key = World(X3DH), public(secret(b"device ratchet"))
    out = []
    base = dict(device_id=DEVICE_ID.decode(), node=world.node.public)
    for reason in range(1, 6):
        out.append(base | dict(name="good", request=reset_request(world.node, DEVICE_ID, reason, key), reason=reason, ratchet_key=key))
    good = out[0]["request"]
    case = lambda name, error, **other: out.append(base | dict(name=name, request=good, error=error) | other)
    case("for another device", "Signature", device_id="pump-8")
    case("of another node", "Signature", node=Identity(secret(b"other")).public)
    case("signed for another purpose", "Signature", request=good[:34] + world.node.sign(b"unhidra/bundle/v1", DEVICE_ID, good[:34]))
    case("another reason under the signature", "Signature", request=good[:1] + b"\x02" + good[2:])
    case("another key under the signature", "Signature", request=good[:2] + bytes(32) + good[34:])
    case("a reason there is not", "UnknownReason", request=reset_request(world.node, DEVICE_ID, 6, key))
    case("a reason of zero", "UnknownReason", request=reset_request(world.node, DEVICE_ID, 0, key))
    case("one byte short", "TooShort", request=good[:-1])
    case("one byte long", "TooLong", request=good + b"\0")
    return out


KEYS = dict(kind=0, name=1, device_time_ms=2, body=3, command_id=4, status=5, expires_at_ms=6, transfer=7, chunk_offset=8,
            total=9, reading_id=10)


def plaintexts():
    valid = [
        dict(kind=0, name="temperature", device_time_ms=1_900_000_000_123, body=b"21.5", reading_id=300),
        dict(kind=0),
        dict(kind=0, body=b""),
        dict(kind=0, name=""),
        dict(kind=0, name="Größe µ 温度"),
        dict(kind=1, command_id=bytes([7] * 16), status=4),
        dict(kind=2, name="started"),
        dict(kind=4, name="want", transfer=2**64 - 1),
        dict(kind=16, name="reboot", body=b"", command_id=bytes([7] * 16), expires_at_ms=1),
        dict(kind=17, name="hello"),
        dict(kind=18, device_time_ms=NOON),
        dict(kind=20, body=b"\1", transfer=24, chunk_offset=65_536, total=1 << 32),
        dict(kind=99),
    ]
    # Sizes around each bucket: a map with a body of n bytes below 24, 256 and 65 536.
    valid += [dict(kind=0, body=bytes(n)) for n in (58, 59, 60, 121, 122, 123, 248, 249, 250, 505, 506, 1017, 1018, 2041, 2042)]
    keyed = lambda known: {KEYS[name]: value for name, value in known.items()}
    out = dict(valid=[dict(fields=known, padded=plaintext(keyed(known))) for known in valid])
    read_over = ["a500000343aabbcc0b82f6fb3ff199999999999a181861782004", "a2000061610a", "a20000188081818181818100"]
    out["with_unknown_keys"] = [dict(kind=0, padded=padded(bytes.fromhex(text))) for text in read_over]
    wrong = dict(
        Cbor=["", "a200000000", "a20161610000", "a1001800", "a1180000", "b8010000", "bf0000ff", "8100", "a200000161ff",
              "a200001880818181818181818100", "a200000bfb3ff0000000000000", "a200000b5f4101ff", "a200000ba2010201ff",
              "a200000bf800", "a200000b7a00000001", "1bffffffffffffffff"],
        Value=["a10100", "a1014161", "a10020", "a200000220", "a20000036161", "a20000044107", "a200000505", "a2000006f6", "a200000a20",
               "a2000007f5", "a200000861 30".replace(" ", ""), "a200000940"],
        NoKind=["a0", "a1016161", "a10341ff", "a11863 00".replace(" ", "")],
    )
    out["invalid"] = [dict(padded=padded(bytes.fromhex(text)), error=error) for error, texts in wrong.items() for text in texts]
    good = padded(bytes.fromhex("a10000"))
    out["invalid"] += [dict(padded=bytes.fromhex(text), error="Cbor") for text in ("a1", "a100", "a20000")]
    bad = [good[:3], good[:63], good + b"\0", good + bytes(64), bytes.fromhex("a1000080"), good[:3] + b"\0" + good[4:],
           good[:3] + b"\x81" + good[4:], good[:63] + b"\1", good[:4] + b"\x80" + good[5:], bytes.fromhex("a10000") + bytes(61)]
    out["invalid"] += [dict(padded=text, error="Padding") for text in bad]
    out["padded_len"] = [dict(map=n, padded=len(padded(bytes(n)))) for n in
                         (1, 62, 63, 64, 126, 127, 128, 255, 256, 511, 512, 1023, 1024, 2047, 2048, 64_511)]
    return out


def main(folder):
    talks = [talk(X3DH), talk(PQXDH)]
    for name, content in (
        ("handshakes", [handshake(X3DH), handshake(PQXDH)]),
        ("messages", [told | dict(events=[hashed(event) for event in told["events"]]) for told, _ in talks]),
        ("states", states(talks)),
        ("bundles", bundles()),
        ("resets", resets()),
        ("plaintexts", plaintexts()),
    ):
        with open(os.path.join(folder, name + ".json"), "w") as file:
            json.dump(plain(content), file, indent=1, ensure_ascii=False)
            file.write("\n")


main(sys.argv[1])
