#!/usr/bin/env python3
"""The device's side, written from PROTOCOL.md alone: a JSON-lines peer for the node's side in Rust.

  cargo run -p unhidra-e2ee --features pqxdh --example contact -- 7 400 python3 e2ee/oracle/device.py

  {"op": "enroll", "device_id", "suite", "node"}   the node's IK, pinned       -> {"identity"}
  {"op": "ask"}                                    for a bundle                -> {"request"}
  {"op": "bundle", "bundle", "now_ms"}             begins a session            -> {"counter"}
  {"op": "say", "fields", "now_ms"}                a plaintext, by its keys    -> {"envelope"}
  {"op": "hear", "envelope", "now_ms"}                                         -> {"fields"}
  {"op": "reset", "request"}                                                   -> {"obeyed"}
  {"op": "reboot"}                                                             -> {}

Every answer has "state", a hash of all that the device keeps, "error" where it refused, and "restart"
where it is to begin a session of its own accord. Byte strings among the fields are marked: {"hex": ".."}.
"""
import hashlib, json, secrets, sys
from unhidra import *

LEASE = 4
draw = secrets.token_bytes


class Device:
    def __init__(self, device_id, suite, node):
        self.identity, self.id, self.suite, self.node = Identity(draw(32)), device_id, suite, node
        self.sessions, self.lease, self.nonce, self.restart = Sessions(), None, None, False

    def ask(self):
        self.nonce = draw(16)
        return bytes([self.suite]) + self.nonce

    def bundle(self, data, now_ms):
        taken = Bundle(data, self.suite)
        taken.check(self.id, self.node, self.nonce)
        present = self.sessions.present
        session = begin(self.identity, self.id, self.suite, taken, present.counter if present else 0, now_ms, draw)
        self.nonce, self.lease = None, None     # a bundle serves one handshake
        self.sessions.begin(session)
        return session.counter

    def say(self, fields, now_ms):
        session = self.sessions.present
        covered = self.lease and self.lease[0] == session.own_key and session.sending.count < self.lease[1]
        if not covered or session.step_is_due(now_ms):
            session.lease(LEASE, now_ms, draw)
            self.lease = session.own_key, session.sending.count + LEASE
        return session.seal(plaintext(fields))

    def hear(self, envelope, now_ms):
        try:
            return read_plaintext(self.sessions.open(Message(envelope), now_ms, draw))
        except Refused as refused:
            # Section 7: at most once an hour, and not while a head is unconfirmed.
            present = self.sessions.present
            may = not present.head and now_ms - present.began_ms >= 3_600_000
            self.restart = may and refused.args[0] in ("UnknownKey", "TooFar")
            raise

    def reset(self, request):
        _, key = read_reset(request, self.id, self.node)
        return key == self.sessions.present.own_key

    def reboot(self):
        for name in ("present", "previous"):
            session = getattr(self.sessions, name)
            setattr(self.sessions, name, session and Session.read(session.record()))
        self.lease = None

    def state(self):
        sessions = [s.record() + number(s.sending.count) for s in (self.sessions.present, self.sessions.previous) if s]
        recent = b"".join(key + number(n) + tag for key, n, tag in self.sessions.recent)
        return hashlib.sha256(b"".join(sessions) + recent).hexdigest()


def marked(fields):
    return {str(key): dict(hex=value.hex()) if isinstance(value, bytes) else value for key, value in fields.items()}


def unmarked(fields):
    return {int(key): bytes.fromhex(value["hex"]) if isinstance(value, dict) else value for key, value in fields.items()}


def answer(device, q):
    match q["op"]:
        case "ask":
            return dict(request=device.ask().hex())
        case "bundle":
            return dict(counter=device.bundle(bytes.fromhex(q["bundle"]), q["now_ms"]))
        case "say":
            return dict(envelope=device.say(unmarked(q["fields"]), q["now_ms"]).hex())
        case "hear":
            return dict(fields=marked(device.hear(bytes.fromhex(q["envelope"]), q["now_ms"])))
        case "reset":
            return dict(obeyed=device.reset(bytes.fromhex(q["request"])))
        case "reboot":
            device.reboot()
            return {}


def main():
    device = None
    for line in sys.stdin:
        q = json.loads(line)
        if q["op"] == "enroll":
            device = Device(q["device_id"].encode(), q["suite"], bytes.fromhex(q["node"]))
            said = dict(identity=device.identity.public.hex())
        else:
            device.restart = False
            try:
                said = answer(device, q)
            except Refused as refused:
                said = dict(error=refused.args[0])
        print(json.dumps(said | dict(state=device.state(), restart=device.restart)), flush=True)


main()
