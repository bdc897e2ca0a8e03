"""Documents that somebody may write to stop a node: each is at most 512 KiB, and each once cost seconds or a crash."""

from __future__ import annotations

from collections.abc import Callable

SIZE = 512 * 1024
WEB = '"vip":"192.0.2.1","port":80'
BACKENDS = '"backends":{"a":{"address":"10.0.0.1"}}'


def filled(head: str, unit: str, tail: str = "", size: int = SIZE) -> str:
    return (head + unit * ((size - len(head) - len(tail)) // len(unit)) + tail)[:size]


def listed(head: str, item: Callable[[int], str], tail: str, count: int, between: str = ",") -> str:
    return head + between.join(map(item, range(count))) + tail


def address(number: int) -> str:
    return f'"address":"10.{number // 62500}.{number // 250 % 250}.{number % 250}"'


def chained(line: Callable[[str, str], str], first: str) -> str:
    letters = "abcdefghijklmnop"
    return first + "\n".join(line(letters[place], letters[place + 1]) for place in range(len(letters) - 1))


def checked(check: str, backends: str = BACKENDS) -> str:
    return f'{{{WEB},"check":{check},{backends}}}'


PARTS = '{"type":"any","checks":[' + ",".join(["{}"] * 16) + "]}"
JSON = {
    "digits in a duration": filled(f'{{{WEB},"drain":"', "1", '"}'),
    "digits and blanks": filled(f'{{{WEB},"drain":"', "1 ", '"}'),
    "lists in lists": filled("", "["),
    "objects in objects": filled("", '{"a":'),
    "980 levels": '{"a":' + "[" * 980 + "]" * 980 + "}",
    "empty lists": filled("[", "[],", "[]]"),
    "empty objects": filled("[", "{},", "{}]"),
    "quotes": filled("", '"'),
    "backslashes": filled("[" * 40, "\\"),
    "whole numbers": filled("[", "1,", "1]"),
    "fractions": filled("[", "1.1,", "1]"),
    "one number": filled("[", "9", "]"),
    "one power": filled("[1e", "9", "]"),
    "fields": listed("{", lambda n: f'"f{n}":1', "}", 40_000),
    "one field twice": listed("{", lambda n: f'"f{n}":1', ',"f0":2}', 40_000),
    "unknown fields": listed("{", lambda n: f'"f{n}":1', "}", 9_990),
    "backends": listed(f'{{{WEB},"backends":{{', lambda n: f'"b{n}":{{{address(n)}}}', "}}", 4_900),
    "bad backends": listed(f'{{{WEB},"backends":{{', lambda n: f'"b{n}":{{"addres":1}}', "}}", 4_900),
    "empty backends": listed(f'{{{WEB},"backends":{{', lambda n: f'"b{n}":{{}}', "}}", 9_900),
    "names of backends": listed(f'{{{WEB},"backends":{{', lambda n: f'"b/{n}":1', "}}", 9_900),
    "one address": listed(f'{{{WEB},"backends":{{', lambda n: f'"b{n}":{{"address":"10.0.0.1"}}', "}}", 4_900),
    "checks of checks": checked(listed('{"type":"all","checks":[', lambda n: PARTS, "]}", 16)),
    "checks of many backends": checked(
        listed('{"type":"all","checks":[', lambda n: PARTS, "]}", 3),
        listed('"backends":{', lambda n: f'"b{n}":{{{address(n)}}}', "}", 4_000),
    ),
    "headers": checked(listed('{"type":"http","headers":{', lambda n: f'"h{n}":"1"', "}}", 9_900)),
    "codes": checked(listed('{"type":"http","expect":[', lambda n: "200", "]}", 9_900)),
    "arguments": checked(listed('{"type":"command","command":[', lambda n: '"1"', "]}", 9_900)),
    "expressions": listed(
        f'{{{WEB},"backends":{{',
        lambda n: f'"b{n}":{{{address(n)},"check":{{"type":"http","body":"re:{n}{"[^a]{1,30}" * 90}"}}}}',
        "}}",
        480,
    ),
    "escapes": checked(
        '{"type":"tcp","send":"' + r"\\n" * 20_000 + '"}',
        listed('"backends":{', lambda n: f'"b{n}":{{{address(n)}}}', "}", 4_900),
    ),
    "VIPs": listed('{"port":80,"vip":[', lambda n: f'"192.0.{n // 250}.{n % 250}"', "]}", 9_900),
    "VIPs and backends": listed('{"port":80,"vip":[', lambda n: f'"192.0.{n // 250}.{n % 250}"', "],", 1_000)
    + listed('"backends":{', lambda n: f'"b{n}":{{{address(n)}}}', "}}", 3_900),
    "VIPs and backends of the other family": listed(
        '{"port":80,"forward":"dr","vip":[', lambda n: f'"2001:db8::{n:x}"', "],", 1_000
    )
    + listed('"backends":{', lambda n: f'"b{n}":{{{address(n)}}}', "}}", 99),
    "digits in a netmask": filled(f'{{{WEB},"persistence":{{"netmask":"', "1", '.1.1.1"}}', 60_000),
    "bad VIPs": listed('{"port":80,"vip":[', lambda n: f'"x{n}"', "]}", 9_900),
    "communities": listed(f'{{{WEB},"announce":{{"communities":[', lambda n: f'"x{n}"', "]}}", 9_900),
    "flags": listed(f'{{{WEB},"scheduler_flags":[', lambda n: f'"x{n}"', "]}", 9_900),
    "labels": filled(f'{{{WEB},{BACKENDS},"check":{{"type":"dns","name":"', "a.", '"}}', 60_000),
    "a long name": filled(f'{{{WEB},"backends_from":{{"dns":{{"name":"', "a", '"}}}'),
    "a plain form": filled("", "a=1 "),
    "a plain value": filled("a=", "1"),
    "a letter": filled("", "a"),
    "infinity": f'{{{WEB},"announce":{{"damping":{{"suppress":"inf"}}}}}}',
    "too large": f'{{{WEB},"announce":{{"damping":{{"suppress":1e400}}}}}}',
    "too large a text": f'{{{WEB},"announce":{{"damping":{{"suppress":"1e400"}}}}}}',
    "no number": f'{{{WEB},"drain":NaN}}',
    "half a surrogate": f'{{{WEB},"backends":{{"\\ud800":{{"address":"10.0.0.1"}}}}}}',
}
YAML = {
    "lists in lists": filled("", "["),
    "items in items": filled("", "- "),
    "keys in keys": filled("", "? "),
    "aliases of aliases": chained(
        lambda old, new: f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]", "a: &a [x,x,x,x,x,x,x,x,x]\n"
    ),
    "merges of merges": chained(
        lambda old, new: f"{new}: &{new} {{<<: [{','.join([f'*{old}'] * 9)}]}}", "a: &a {x: 1}\n"
    ),
    "an alias of itself": "a: &a [*a]",
    "an alias as a name": "{&a vip: 192.0.2.1, *a : 192.0.2.9}",
    "aliases": "a: &a [" + "x," * 4000 + "]\nb: [" + ",".join(["*a"] * 100) + "]",
    "a number of base 60": filled("a: ", "1:", "1"),
    "a tagged number": filled('a: !!int "', "1:", '1"'),
    "a program": "!!python/object/apply:os.system [id]",
    "a date": "a: 2026-01-01",
    "infinity": "a: .inf",
    "anchors": listed("", lambda n: f"a{n}: &a{n} 1", "", 9_000, "\n"),
}
TOML = {
    "lists in lists": filled("a=", "["),
    "tables in tables": filled("a=", "{a="),
    "a long key": filled("", "a.", "=1"),
    "a long header": filled("[", "a.", "]"),
    "keys of 120 parts": listed("", lambda n: "a." * 120 + f"b{n}=1", "", 2_000, "\n"),
    "whole numbers": filled("a=[", "1,", "1]"),
    "one number": filled("a=", "9"),
    "hexadecimal digits": filled("a=0x", "f"),
    "tables": listed("", lambda n: "[[a]]", "", 80_000, "\n"),
    "infinity": "a = inf",
    "lists in lists behind brackets in a text": 'a="' + "]" * 9_000 + '"\nb=' + "[" * 9_000,
    "tables in tables behind braces in a text": 'a="' + "}" * 900 + '"\nb=' + "{a=" * 900 + "1" + "}" * 900,
    "headers of 100 parts": listed("", lambda n: f"[x.{'a.' * 100}b{n}]", "", 2_000, "\n"),
    "comments": filled("", "#\n"),
    "a text of many lines": filled('a="""', "\\\n", '"""'),
}
DOCUMENTS = [
    (form, name, text)
    for form, texts in (("json", JSON), ("yaml", YAML), ("toml", TOML))
    for name, text in texts.items()
]
