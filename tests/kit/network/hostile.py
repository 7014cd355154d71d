"""List hostile inputs: bytes that a server must answer by closing the connection."""

import json
from dataclasses import dataclass

from tests.kit.clients.wire import masked

BEFORE_CONNECT = "before CONNECT"
AUTHENTICATING = "authenticating"
JOINED = "joined"
STATES = (BEFORE_CONNECT, AUTHENTICATING, JOINED)

MAX_MESSAGE_BYTES = 65536


@dataclass(frozen=True, slots=True)
class HostileInput:
    """Masked bytes that a client sends, and the connection states in which they are invalid."""

    name: str
    wire: bytes
    states: tuple[str, ...] = STATES

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


def _frame(name: str, wire: bytes) -> HostileInput:
    return HostileInput(f"frame: {name}", wire)


def _packet(name: str, text: str, states: tuple[str, ...] = STATES) -> HostileInput:
    return HostileInput(f"packet: {name}", masked(text.encode("utf-8", "surrogatepass")), states)


def _event(name: str, argument: str) -> HostileInput:
    return _packet(name, f'42/market,1["subscribe",{argument}]')


_FRAMES = (
    _frame("no mask", b"\x81\x012"),
    _frame("no mask, empty", b"\x81\x00"),
    _frame("first reserved bit", masked(b"3", first=0xC1)),
    _frame("second reserved bit", masked(b"3", first=0xA1)),
    _frame("third reserved bit", masked(b"3", first=0x91)),
    _frame("binary message", masked(b"\x04abc", first=0x82)),
    _frame("empty binary message", masked(b"", first=0x82)),
    _frame("binary fragment", masked(b"x", first=0x02)),
    *(_frame(f"opcode {code:#x}", masked(b"3", first=0x80 | code)) for code in range(3, 8)),
    *(_frame(f"opcode {code:#x}", masked(b"3", first=0x80 | code)) for code in range(11, 16)),
    _frame("continuation of nothing", masked(b"3", first=0x80)),
    _frame("unfinished continuation of nothing", masked(b"3", first=0x00)),
    _frame("text inside a fragmented text", masked(b"4", first=0x01) + masked(b"3")),
    _frame("fragment inside a fragmented text", masked(b"4", first=0x01) * 2),
    _frame("fragmented ping", masked(b"", first=0x09)),
    _frame("fragmented close", masked(b"", first=0x08)),
    _frame("long ping", masked(b"x" * 126, first=0x89)),
    _frame("long close", masked(b"\x03\xe8" + b"x" * 124, first=0x88)),
    _frame("close of one byte", masked(b"\x03", first=0x88)),
    _frame("close code 0", masked(b"\x00\x00", first=0x88)),
    _frame("close code 999", masked((999).to_bytes(2, "big"), first=0x88)),
    _frame("close code 1004", masked((1004).to_bytes(2, "big"), first=0x88)),
    _frame("close code 1005", masked((1005).to_bytes(2, "big"), first=0x88)),
    _frame("close code 1006", masked((1006).to_bytes(2, "big"), first=0x88)),
    _frame("close code 1015", masked((1015).to_bytes(2, "big"), first=0x88)),
    _frame("close code 2999", masked((2999).to_bytes(2, "big"), first=0x88)),
    _frame("close code 5000", masked((5000).to_bytes(2, "big"), first=0x88)),
    _frame("close reason not UTF-8", masked(b"\x03\xe8\xff", first=0x88)),
    _frame("text not UTF-8", masked(b"4\xff\xfe")),
    _frame("text with half a character", masked(b"4\xe2\x82")),
    _frame("text with a raw surrogate", masked(b"4\xed\xa0\x80")),
    _frame("overlong UTF-8", masked(b"4\xc0\xaf")),
    _frame("length 5 in two bytes", b"\x81\xfe\x00\x05\0\0\0\0hello"),
    _frame("length 5 in eight bytes", b"\x81\xff" + (5).to_bytes(8, "big") + b"\0\0\0\0hello"),
    _frame(
        "length 65535 in eight bytes",
        b"\x81\xff" + (65535).to_bytes(8, "big") + b"\0\0\0\0" + b"4" * 65535,
    ),
    _frame("length 125 in two bytes", b"\x81\xfe\x00\x7d"),
    _frame("length over the limit", b"\x81\xff" + (65537).to_bytes(8, "big")),
    _frame("length of 2^62", b"\x81\xff" + (2**62).to_bytes(8, "big")),
    _frame("length with the top bit", b"\x81\xff" + (2**63 + 9).to_bytes(8, "big")),
    _frame(
        "fragments over the limit",
        masked(b"4" + b" " * 40_000, first=0x01) + masked(b" " * 40_000, first=0x80),
    ),
    _frame("a thousand fragments", masked(b"4", first=0x01) + masked(b"2", first=0x00) * 1000),
    _frame("a thousand empty fragments", masked(b"4", first=0x01) + masked(b"", first=0) * 1000),
    _frame("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    _frame("TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    _frame("zeros", b"\x00" * 64),
)

_ENGINE = (
    _packet("empty", ""),
    _packet("letter", "x"),
    _packet("digit of another script", "\u0664"),
    _packet("open", '0{"sid":"mine"}'),
    _packet("ping", "2"),
    _packet("probe outside an upgrade", "2probe"),
    _packet("unsolicited pong", "3"),
    _packet("pong with data", "3probe"),
    _packet("upgrade outside an upgrade", "5"),
    _packet("noop", "6"),
    _packet("seven", "7"),
    _packet("base64 binary", "bAAEC"),
    _packet("close with data", "1x"),
)

_SOCKET = (
    _packet("message without a packet", "4"),
    _packet("unknown kind", "47"),
    _packet("letter as kind", "4x"),
    _packet("brackets", "4[[["),
    _packet("server's error packet", '44/market,{"message":"x"}'),
    _packet("binary event", '451-/market,["x",{"_placeholder":true,"num":0}]'),
    _packet("binary ack", '461-/market,1[{"_placeholder":true,"num":0}]'),
    _packet("ten billion attachments", '459999999999-/market,["x"]'),
    _packet("no attachments", '450-/market,["x"]'),
    _packet("wrong placeholder", '451-/market,["x",{"_placeholder":true,"num":7}]'),
    _packet("attachments of an event", '421-/market,["x"]'),
    _packet("event without data", "42/market,"),
    _packet("event without data or comma", "42/market"),
    _packet("event with an object", "42/market,{}"),
    _packet("event with a text", '42/market,"x"'),
    _packet("event with nothing", "42/market,[]"),
    _packet("event whose name is a number", "42/market,[1]"),
    _packet("event whose name is null", "42/market,[null]"),
    _packet("event whose name is empty", '42/market,[""]'),
    _packet("event whose name is too long", f'42/market,["{"x" * 65}"]'),
    *(
        _packet(f"reserved event {name}", f'42/market,["{name}",{{}}]')
        for name in (
            "connect",
            "connect_error",
            "disconnect",
            "disconnecting",
            "newListener",
            "removeListener",
        )
    ),
    _packet("unfinished array", '42/market,["subscribe"'),
    _packet("something behind the array", '42/market,["subscribe"]x'),
    _packet("two arrays", '42/market,["subscribe"]["subscribe"]'),
    _packet("single quotes", "42/market,['subscribe']"),
    _packet("id too long", '42/market,1234567890123456["subscribe",{}]'),
    _packet("id of other digits", '42/market,\uff11["subscribe",{}]'),
    _packet("negative id", '42/market,-1["subscribe",{}]'),
    _packet("ack without id", "43/market,[]"),
    _packet("ack without array", "43/market,1{}"),
    _packet("event of no namespace", '42["subscribe",{}]'),
    _packet("event of a namespace never joined", '42/session,1["join",{}]'),
    _packet("event of an unknown namespace", '42/nowhere,1["x",{}]'),
    _packet("namespace with a query", '42/market?x=1,["subscribe",{}]'),
    _packet("namespace too long", f'42/{"x" * 65},["subscribe",{{}}]'),
    _packet("namespace with a control character", '42/mar\x00ket,["subscribe",{}]'),
    _packet("connect with an array", "40/market,[]"),
    _packet("connect with a text", '40/market,"token"'),
    _packet("connect with a number", "40/market,1"),
    _packet("connect with null", "40/market,null"),
    _packet("connect with a key twice", '40/market,{"token":"a","token":"b"}'),
    _packet("connect with something behind it", "40/market,{}{}"),
    _packet("connect to a bare name with a query", "40/market?token=x"),
    _packet("connect to a bare name too long", f"40/{'x' * 64}"),
    _packet("connect with an id", "40/market,1{}"),
    _packet("connect with an id and no data", "405/market"),
    _packet("connect to one name behind another", "40/market,/session"),
    _packet("connect with broken JSON", '40/market,{"token":'),
    _packet("connect to a name without a slash", "40market,{}"),
    _packet("disconnect with data", '41/market,{"x":1}'),
    _packet("disconnect with an id", "41/market,1"),
    _packet("disconnect from one name behind another", "41/market,/session"),
    _packet("disconnect of a bare name with a query", "41/market?x"),
)

_JSON = (
    _event("NaN", "NaN"),
    _event("Infinity", "Infinity"),
    _event("minus Infinity", "-Infinity"),
    _event("a number over all bounds", "1e999"),
    _event("an integer of 30 digits", "123456789012345678901234567890"),
    _event("a key twice", '{"topics":["PRICE:A"],"topics":["PRICE:B"]}'),
    _event("a key twice below", '{"a":{"b":1,"b":2}}'),
    _event("a lone surrogate", '"\\ud800"'),
    _event("a lone low surrogate as key", '{"\\udc00":1}'),
    _event("arrays a thousand deep", "[" * 1000 + "]" * 1000),
    _event("objects forty deep", '{"a":' * 40 + "1" + "}" * 40),
    _event("quotes without end below forty arrays", "[" * 40 + '"' + '\\"' * 30_000),
    _event("a key twice, once in disguise", '{"a":1,"\\u0061":2}'),
    _event("an integer just over 64 bits", "18446744073709551616"),
    _event("a raw control character", '"\x01"'),
    _event("a trailing comma", "[1,]"),
    _event("a comment", "{/* */}"),
    _event("a bare word", "undefined"),
    _event("a byte order mark", "\ufeff{}"),
)

HOSTILE_INPUTS = (*_FRAMES, *_ENGINE, *_SOCKET, *_JSON)

HARMLESS = masked(b"42/market,5" + json.dumps(["subscriptions", {}]).encode())
