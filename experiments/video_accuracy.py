"""Accuracy of `mmcl_jax.predict` on videos whose actions are known, from the JSON lines that it wrote.

    python -m mmcl_jax.predict --json=FILE.jsonl VIDEO VIDEO ...
    python -m experiments.video_accuracy FILE.jsonl --labels FILE.csv [--split NAME]

The labels are a CSV file with the header `clip,action,split`. `clip` is the end of the input's path, `action` the
model's name of the action, several that are right separated by `|`, or nothing for what the model does not know;
`split` is any name, such as that of the half of the people on which choices were made. Only lines over a whole input
count. If an input shows several people, the one with the longest line counts.

Printed are top-1 and top-3 over the clips of known actions (and their mean over the actions), both with every answer
and where `nothing that I know` is wrong; the share of clips of unknown actions that are refused; and, by action, what
the model says.
"""

import argparse
import collections
import dataclasses
import math
import pathlib
from collections.abc import Sequence

import numpy as np

from experiments.markdown import markdown_table
from mmcl_jax.runtime.errors import MMCLError, plain_errors
from mmcl_jax.runtime.files import parse_json, read_text
from mmcl_jax.runtime.tables import TableError, read_table

_COLUMNS = ("clip", "action", "split")
_UNKNOWN = "nothing that I know"


class LabelsError(MMCLError, ValueError):
    """Labels or predictions that cannot be used. The message names the file and line."""


@dataclasses.dataclass(frozen=True)
class Label:
    """The actions of a clip that are right, none if the model knows none of them, and its split."""

    clip: str
    actions: tuple[str, ...]
    split: str


@dataclasses.dataclass(frozen=True)
class Answer:
    """The actions of an input, the most probable first, and whether the model said that it knows none."""

    actions: tuple[str, ...]
    refused: bool


def read_labels(path: pathlib.Path) -> list[Label]:
    """Raises: LabelsError."""
    try:
        table = read_table(path, _COLUMNS)
    except TableError as error:
        raise LabelsError(str(error)) from error
    rows = [tuple(cells[column] for column in _COLUMNS) for _, cells in table]
    return [Label(clip, tuple(filter(None, actions.split("|"))), split) for clip, actions, split in rows]


def read_answers(path: pathlib.Path) -> dict[str, Answer]:
    """The answers over whole inputs, by input; of several persons, that of the longest. Raises: LabelsError."""
    answers: dict[str, tuple[float, Answer]] = {}
    try:
        lines = read_text(path).split("\n")  # the name of an action may hold a line separator of Unicode
    except (OSError, ValueError) as error:
        raise LabelsError(f"{path}: not the JSON lines of mmcl_jax.predict ({error})") from error
    for number, line in enumerate(lines, start=1):
        try:
            found = _read_answer(line) if line.strip() else None
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise LabelsError(f"{path}, line {number}: not a JSON line of mmcl_jax.predict ({error!r:.200})") from error
        if found is not None:
            name, length, answer = found
            if length > answers.get(name, (-1.0, answer))[0]:
                answers[name] = length, answer
    return {name: answer for name, (_, answer) in answers.items()}


def _read_answer(line: str) -> tuple[str, float, Answer] | None:
    """Input, length in seconds and answer of a line; None for a window. Raises: ValueError and others for any other."""
    event = parse_json(line)
    if not event.get("whole"):
        return None
    name, length, actions = event["input"], event["end"] - event["start"], [action for action, _ in event["top"]]
    if not actions or not all(isinstance(text, str | None) for text in actions) or not isinstance(name, str):
        raise ValueError("no actions, or names that are no texts")
    if not 0 <= length < math.inf:
        raise ValueError(f"a length of {length!s:.40} seconds")
    return name, length, Answer(tuple(each for each in actions if each is not None), refused=None in actions[:1])


def match(labels: Sequence[Label], answers: dict[str, Answer]) -> list[tuple[Label, Answer]]:
    """Each label with its answer; a clip in which nobody was found is refused.

    Raises: LabelsError if no label has an answer, or a label is the end of several inputs' paths.
    """
    found = []
    for label in labels:
        ends = [name for name in answers if f"/{name}".endswith(f"/{label.clip}")]
        if len(ends) > 1:
            raise LabelsError(f"the clip {label.clip} may be {ends[0]} or {ends[1]}; write more of its path")
        found.append((label, answers[ends[0]] if ends else Answer((), refused=True)))
    if not any(answer.actions for _, answer in found):
        raise LabelsError(
            f"no prediction for {labels[0].clip} or any other clip of the labels" if labels else "no labels"
        )
    return found


def report(matched: Sequence[tuple[Label, Answer]]) -> str:
    """Markdown: the accuracy, and by action what the model said."""
    known = [(label, answer) for label, answer in matched if label.actions]
    unknown = [answer for label, answer in matched if not label.actions]
    lines = []
    if known:
        rows = []
        for name, first in (("every answer", False), (f"'{_UNKNOWN}' is wrong", True)):
            values = []
            for count in (1, 3):
                hits = [
                    bool({*label.actions} & {*a.actions[:count]}) and not (first and a.refused) for label, a in known
                ]
                groups = collections.defaultdict(list)
                for (label, _), hit in zip(known, hits, strict=True):
                    groups["|".join(label.actions)].append(hit)
                values += [100 * np.mean(hits), 100 * np.mean([np.mean(group) for group in groups.values()])]
            rows.append((name, *(f"{value:.1f}" for value in values)))
        columns = (f"{len(known)} clips of known actions", "top-1 %", "mean action %", "top-3 %", "mean action %")
        lines += [markdown_table(columns, rows), ""]
    if unknown:
        refused = 100 * np.mean([answer.refused for answer in unknown])
        lines += [f"{len(unknown)} clips of unknown actions: {refused:.1f} % refused", ""]
    by_action = collections.defaultdict(list)
    for label, answer in matched:
        by_action["|".join(label.actions) or "unknown"].append((label, answer))
    rows = []
    for name, group in sorted(by_action.items()):
        said = collections.Counter(_UNKNOWN if a.refused else a.actions[0] for _, a in group)
        right = [sum(bool({*label.actions} & {*a.actions[:count]}) for label, a in group) for count in (1, 3)]
        counts = ", ".join(f"{answer} {count}" for answer, count in said.most_common())
        rows.append((name, len(group), *(right if name != "unknown" else ("", "")), counts))
    return "\n".join([*lines, markdown_table(("action", "clips", "top-1", "top-3", "the model says"), rows)])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predictions", type=pathlib.Path, help="JSON lines of mmcl_jax.predict")
    parser.add_argument("--labels", type=pathlib.Path, required=True, help="a CSV file, clip,action,split")
    parser.add_argument("--split", help="only the clips of this split")
    options = parser.parse_args(arguments)
    with plain_errors():
        labels = read_labels(options.labels)
        labels = [label for label in labels if options.split in (None, label.split)]
        print(report(match(labels, read_answers(options.predictions))))


if __name__ == "__main__":
    main()
