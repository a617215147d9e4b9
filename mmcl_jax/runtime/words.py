"""Numbers of things in messages: one clip, two clips."""


def counted(number: int, one: str, many: str = "") -> str:
    """'1 clip', '2 clips', '1,000 clips'; or '1 clip is', '2 clips are' from `counted(number, "clip is", "clips are")`.

    Args:
      number: of the things.
      one: what follows a 1.
      many: what follows other numbers; empty: `one` with an s.
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
