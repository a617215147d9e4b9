"""JSON files with other values, in other forms, or with names of code."""

import json

from tests.fuzz.mutations.kinds import CANARY, Mutation, into, pick
from tests.fuzz.mutations.values import DEEP, change_value

MUTATIONS: dict[str, Mutation] = {}
_mutation = into(MUTATIONS)


@_mutation("json", removes=True)
def json_value(rng, contents):
    try:
        root = json.loads(contents)
    except (ValueError, RecursionError):
        return contents
    for _ in range(int(pick(rng, (1, 1, 2)))):
        root = change_value(rng, root, numpy_too=False)
    try:
        text = _dump(root)
    except RecursionError:  # of a mutated one, which holds lists within each other already
        return contents
    return text.replace(json.dumps(DEEP), "[" * 5000 + "]" * 5000).encode("utf-8", "surrogatepass")


def _dump(root) -> str:
    """JSON, with whole numbers of any length."""

    def default(value):
        return str(value)

    numbers: list[str] = []

    def replaced(value):
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**4000:
            numbers.append("1" + "0" * 5000)
            return f"@number{len(numbers) - 1}@"
        if isinstance(value, dict):
            return {str(key): replaced(inner) for key, inner in value.items()}
        return [replaced(inner) for inner in value] if isinstance(value, list) else value

    text = json.dumps(replaced(root), default=default)
    for place, number in enumerate(numbers):
        text = text.replace(f'"@number{place}@"', number)
    return text


@_mutation("json")
def json_form(rng, contents):
    return pick(
        rng,
        (
            b"\xef\xbb\xbf" + contents,
            contents.decode("utf-8", "replace").encode("utf-16"),
            contents.replace(b'"', b"'"),
            contents.rstrip()[:-1] + b",}",
            contents + contents,
            contents.replace(b":", b": NaN, ", 1),
            b"[" * 100_000,
            b'{"a":' * 100_000,
            contents.replace(b"\n", b"\r\n"),
        ),
    )


@_mutation("json")
def json_names_code(rng, contents):
    """A string that names a class, or any string, becomes the name of a module whose import would show."""
    named = [word for word in contents.split(b'"') if b"." in word and b" " not in word and b"\n" not in word]
    words = named or [word for word in contents.split(b'"')[1::2] if word]
    if not words:
        return contents
    evil = pick(rng, (f"{CANARY}.Evil", f"{CANARY}", f"{CANARY}.{CANARY}.Evil")).encode()
    return contents.replace(b'"' + pick(rng, words) + b'"', b'"' + evil + b'"')
