"""Lines and words of a text become others."""

from tests.fuzz.mutations.kinds import Mutation, into, pick

MUTATIONS: dict[str, Mutation] = {}
_mutation = into(MUTATIONS)


_ODD_WORDS = (
    *(b"nan", b"inf", b"-inf", b"1e39", b"1e400", b"", b"x", b"1,5", b"--1", b"-1", b"0", b"1e-5", b"0x1", b"-1.#IND"),
    *(b"9" * 5000, b"1" * 40, b"\xff\xfe", b"\xe9", "é".encode(), b"\0", b"S999C999P999R999A999", b"../x", b"25.0"),
)


@_mutation("text", removes=True)
def remove_a_line(rng, contents):
    lines = contents.split(b"\n")
    del lines[int(rng.integers(len(lines)))]
    return b"\n".join(lines)


@_mutation("text")
def repeat_a_line(rng, contents):
    lines = contents.split(b"\n")
    place = int(rng.integers(len(lines)))
    return b"\n".join(lines[:place] + [lines[place]] * int(pick(rng, (2, 3, 100))) + lines[place + 1 :])


@_mutation("text")
def swap_lines(rng, contents):
    lines = contents.split(b"\n")
    first, second = (int(place) for place in rng.integers(len(lines), size=2))
    lines[first], lines[second] = lines[second], lines[first]
    return b"\n".join(lines)


@_mutation("text")
def odd_word(rng, contents):
    lines = contents.split(b"\n")
    place = int(rng.integers(len(lines)))
    separator = b"," if b"," in lines[place] else b" "
    words = lines[place].split(separator)
    words[int(rng.integers(len(words)))] = pick(rng, _ODD_WORDS)
    lines[place] = separator.join(words)
    return b"\n".join(lines)


@_mutation("text")
def odd_count(rng, contents):
    """A line that is a number, as counts are, becomes another number."""
    lines = contents.split(b"\n")
    counts = [row for row, line in enumerate(lines) if line.strip().isdigit()]
    if counts:
        lines[pick(rng, counts)] = pick(rng, (b"0", b"-1", b"2", b"24", b"26", b"1000000000", b"1" + b"0" * 400))
    return b"\n".join(lines)


@_mutation("text")
def missing_word(rng, contents):
    lines = contents.split(b"\n")
    place = int(rng.integers(len(lines)))
    lines[place] = b" ".join(lines[place].split()[: int(rng.integers(12))])
    return b"\n".join(lines)


@_mutation("text")
def other_encoding(rng, contents):
    text = contents.decode("ascii")
    return pick(
        rng,
        (
            text.encode("utf-8-sig"),
            text.encode("utf-16"),
            contents.replace(b"\n", b"\r\n"),
            contents.replace(b"\n", b"\r"),
            contents.replace(b" ", b"\t"),
            contents.replace(b".", b","),
            contents.replace(b"\n", b"\n\n"),
            contents.rstrip(b"\n"),
            contents + b"\n\n \n",
        ),
    )
