"""Computes text features: asks a visual question answering model about every mosaic and stores its answers.

    python -m data_prep.text_features --records DIR [--images DIR] [--question holding] [--feature token_ids]
    python -m data_prep.text_features --images DIR --out DIR [--shard 0/8]

The mosaics come from the records, or from a folder of JPEGs named after their clips. The results are stored in `--out`,
one file per clip, and are never computed again: stop the command at any time, and start it again to continue. Without
`--shard`, the results are added to the records as `text/<model>/<question>/<feature>`; images and skeletons are not
rewritten.

Features: `token_ids` (as in the released code: start, answer, end), `decoder_states` (as in the paper: the decoder's
last hidden state, averaged over the tokens of the answer), `answer_logits` (log-probability of each of `--answers`).
"""

import argparse
import collections
import contextlib
import dataclasses
import json
import pathlib
import re
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np

from data_prep.formats import sources
from data_prep.images import pictures
from data_prep.preparation import commands
from data_prep.text import text_sets, vqa
from mmcl_jax.data import records
from mmcl_jax.data.records import SetAside
from mmcl_jax.runtime.errors import PreparationError, plain_errors
from mmcl_jax.runtime.files import clear_disk_errors, write_whole
from mmcl_jax.runtime.options import positive
from mmcl_jax.runtime.progress import progress_bar
from mmcl_jax.runtime.words import counted

DEFAULT_MODEL = "Salesforce/blip-vqa-base"
FEATURES = ("token_ids", "decoder_states", "answer_logits")
_NAME = re.compile(r"[\w-][\w.-]*")
_LOADING_THREADS = min(8, sources.usable_cores())


@dataclasses.dataclass(frozen=True)
class Request:
    """Which model is asked which questions, and which features are stored.

    Attributes:
      model, revision, precision, max_tokens: see `vqa.load_model`.
      name: name of the model in the records.
      questions: question by name.
      features: a subset of `FEATURES`.
      answers: the answers whose log-probabilities are the `answer_logits`.
      batch_size: mosaics per batch.
    """

    model: str = DEFAULT_MODEL
    revision: str | None = None
    precision: str = "auto"
    max_tokens: int = 10
    name: str = "blip"
    questions: dict[str, str] = dataclasses.field(default_factory=lambda: {"holding": vqa.QUESTIONS["holding"]})
    features: tuple[str, ...] = ("token_ids",)
    answers: tuple[str, ...] = ("yes", "no")
    batch_size: int = 16


@dataclasses.dataclass(frozen=True)
class Mosaics:
    """The pictures to ask about: clip names, sorted, and a function that reads the JPEG of a clip."""

    names: list[str]
    read: Callable[[str], bytes]


@contextlib.contextmanager
def open_mosaics(images, opened: records.Records | None) -> Iterator[tuple[Mosaics, list[SetAside]]]:
    """Opens the mosaics of a folder (or archive) of JPEGs or, if `images` is None, of the records.

    Yields: the mosaics, and what is set aside.
    Raises: PreparationError, RecordsError if there are none.
    """
    if images is None:
        rows = {name: row for row, name in enumerate(opened.index["name"].tolist())}
        lacking = opened.clips_without(range(len(opened)), records.IMAGES)
        if len(lacking) == len(opened):
            raise PreparationError(
                f"{opened.root}: these records have no images; give the folder of the mosaics as --images"
            )
        set_aside = [SetAside(name, "no image in the records") for name in lacking]
        names = sorted(rows.keys() - set(lacking))
        yield Mosaics(names, lambda name: opened.image_file(rows[name])), set_aside
        return
    scratch = pathlib.Path(images).with_name(pathlib.Path(images).name + ".unpacked")
    with sources.open_source(images, ".jpg", scratch) as (files, set_aside):
        yield Mosaics(list(files), lambda name: files[name].read_bytes()), list(set_aside)


class Answering:
    """Asks a model about mosaics in batches and stores the answers.

    The sorted names decide which mosaics share a batch; finished work and the shard do not. So a clip has the same
    feature, bit for bit, in an interrupted run.
    """

    def __init__(self, request: Request, mosaics: Mosaics, out: pathlib.Path):
        """Raises: PreparationError if `out` holds features of the same name that were made differently."""
        self.request = request
        self.mosaics = mosaics
        self.outputs = {
            (question, feature): text_sets.Outputs(out, f"{request.name}/{question}/{feature}")
            for question in request.questions
            for feature in request.features
        }
        for (question, feature), outputs in self.outputs.items():
            outputs.agree_on(self._about(question, feature))
        self.set_aside: list[SetAside] = []
        self.answered = 0
        self.seconds = 0.0
        self._model: vqa.VisualQuestionAnswering | None = None
        self._failure: PreparationError | None = None
        self._lock = threading.Lock()

    def run(self, shard: tuple[int, int] = (0, 1)) -> list[str]:
        """Completes part `shard[0]` of `shard[1]`; returns the names of its clips.

        Raises: PreparationError if the model cannot be loaded or does not fit into memory.
        """
        size = self.request.batch_size
        batches = [self.mosaics.names[first : first + size] for first in range(0, len(self.mosaics.names), size)]
        batches = batches[shard[0] :: shard[1]]
        bar = progress_bar(total=sum(map(len, batches)), unit="clip", desc=self.request.name)
        with bar:
            for batch, loaded in sources.read_ahead(self._load, batches, _LOADING_THREADS):
                started = time.perf_counter()
                for names, prepared in loaded:
                    self._answer(names, prepared)
                    self.answered += len(names)
                self.seconds += time.perf_counter() - started
                bar.update(len(batch))
        return [name for batch in batches for name in batch]

    @property
    def model(self) -> vqa.VisualQuestionAnswering:
        """The model, loaded on first use; a run with nothing left to do loads none."""
        with self._lock:
            if self._failure is not None:
                raise self._failure  # another thread failed to load it; do not try again
            if self._model is None:
                try:
                    self._model = self._load_model()
                except PreparationError as error:
                    self._failure = error
                    raise
        return self._model

    def _load_model(self) -> vqa.VisualQuestionAnswering:
        request = self.request
        model = vqa.load_model(
            request.model, revision=request.revision, precision=request.precision, max_tokens=request.max_tokens
        )
        for (question, feature), outputs in self.outputs.items():
            outputs.claim(self._about(question, feature, model))
        return model

    def _about(self, question: str, feature: str, model: vqa.VisualQuestionAnswering | None = None) -> dict:
        """How a text set is made; None for values that only the loaded model knows."""
        request = self.request
        widths = {"token_ids": vqa.TOKEN_WIDTH, "answer_logits": len(request.answers)}
        precision = None if request.precision == "auto" else request.precision
        about = {
            "model": request.model,
            "revision": (model.revision if model else None) or request.revision,
            "precision": model.precision if model else precision,
            "max_tokens": request.max_tokens,
            "question": request.questions[question],
            "prompt": model.prompt(request.questions[question]) if model else None,
            "feature": feature,
            "width": widths.get(feature, model.width if model else None),
        }
        return {**about, "answers": list(request.answers)} if feature == "answer_logits" else about

    def _load(self, batch: list[str]) -> list[tuple[list[str], object]]:
        """The pictures of a batch as the model takes them, grouped by size; empty if the batch is complete."""
        missing = [name for name in batch if any(outputs.find(name) is None for outputs in self.outputs.values())]
        decoded, faults = {}, []
        for name in batch if missing else []:
            try:
                decoded[name] = pictures.decode(self.mosaics.read(name))
            except (sources.SourceFileError, records.RecordsError, OSError) as error:
                faults.append(SetAside(name, str(error)))
        self.set_aside += faults
        if not decoded.keys() & set(missing):
            return []
        by_size: dict[tuple[int, int], list[str]] = {}
        for name, picture in decoded.items():
            by_size.setdefault(picture.size, []).append(name)
        return [(names, self.model.load([decoded[name] for name in names])) for names in by_size.values()]

    def _answer(self, names: list[str], loaded) -> None:
        """Asks every question about some pictures and stores the missing answers."""
        with sources.clear_memory_errors(f"{len(names)} mosaics", "--batch_size"):
            seen = self.model.see(loaded)
            answers = {
                question: self.model.answer(
                    seen,
                    text,
                    states="decoder_states" in self.request.features,
                    candidates=self.request.answers if "answer_logits" in self.request.features else (),
                )
                for question, text in self.request.questions.items()
            }
        for (question, feature), outputs in self.outputs.items():
            for name, answer in zip(names, answers[question], strict=True):
                self._store(outputs, name, feature, answer)

    def _store(self, outputs: text_sets.Outputs, name: str, feature: str, answer: vqa.Answer) -> None:
        if outputs.find(name) is not None:
            return
        values = {
            "token_ids": answer.token_ids,
            "decoder_states": answer.states,
            "answer_logits": answer.log_probabilities,
        }[feature]
        if np.isfinite(values).all():
            outputs.write(name, values.astype(np.float32), answer.text, answer.num_tokens)
        else:
            reason = f"{outputs.text_set}: not finite in {self.model.precision}; try --precision bfloat16 or float32"
            self.set_aside.append(SetAside(name, reason))

    def report(self, names: list[str]) -> None:
        """Prints the speed of this run, and the answers about all of `names`."""
        if self.answered:
            print(
                f"{counted(self.answered, 'clip')}, {counted(len(self.request.questions), 'question')}, in "
                f"{self.seconds:.1f} s: "
                f"{self.answered / self.seconds:.2f} clips per second ({self.model.device}, {self.model.precision}, "
                f"batches of {self.request.batch_size})"
            )
        for question in self.request.questions:
            outputs = self.outputs[question, self.request.features[0]]
            found = [stored for stored in map(outputs.find, names) if stored is not None]
            counts = collections.Counter(answer for _, answer, _ in found)
            common = ", ".join(f"{answer!r} {count}" for answer, count in counts.most_common(5))
            longer = sum(num_tokens > vqa.TOKEN_WIDTH - 2 for _, _, num_tokens in found)
            print(
                f"{outputs.folder.parent}: {len(found)} of {counted(len(names), 'clip')}; "
                f"{counted(len(counts), 'answer')}: {common}"
            )
            if longer:
                print(
                    f"  {counted(longer, 'answer has', 'answers have')} more than "
                    f"{counted(vqa.TOKEN_WIDTH - 2, 'token')}; token_ids keep the first"
                )


def prepare(request: Request, *, root=None, images=None, out=None, shard: tuple[int, int] | None = None) -> None:
    """Computes the missing features and, without a shard, adds them to the records.

    Args:
      root: records folder that supplies the mosaics (without `images`) and receives the features; None: no records.
      images: folder of JPEGs, each named after its clip.
      out: folder of the features, one file per clip; None: beside the records.
      shard: (i, n), the part of the clips to process; None: all.

    Raises: PreparationError, RecordsError.
    """
    opened = records.Records(root) if root is not None else None
    out = pathlib.Path(out) if out is not None else opened.root.with_name(opened.root.name + ".text")
    with clear_disk_errors(out), open_mosaics(images, opened) as (mosaics, set_aside):
        answering = Answering(request, mosaics, out)
        names = answering.run(shard or (0, 1))
        set_aside += sorted(answering.set_aside, key=lambda item: item.name)
        answering.report(names)
        part = f"_{shard[0]}_of_{shard[1]}" if shard else ""
        listed = out / request.name / f"set_aside{part}.json"
        listing = json.dumps([dataclasses.asdict(item) for item in set_aside], indent=1, ensure_ascii=False)
        write_whole(listed, listing + "\n")
        records.print_set_aside(set_aside, listed)
        if opened is not None and shard is None:
            text_sets.join(opened.root, out, [outputs.text_set for outputs in answering.outputs.values()])
        elif opened is not None:
            print(
                "after all shards have finished, run the same command without --shard to add the features to the "
                "records"
            )


def _question(text: str) -> tuple[str, str]:
    """Parses 'name=text', or the name of a preset."""
    name, _, question = text.partition("=")
    question = question.strip() if "=" in text else vqa.QUESTIONS.get(name)
    if not question or not _NAME.fullmatch(name):
        presets = ", ".join(vqa.QUESTIONS)
        raise argparse.ArgumentTypeError(f"{text!r} is neither one of {presets} nor of the form name=question")
    return name, question


def _short_name(model: str) -> str:
    """A model's name in the records: 'blip' for the default, else the last part of its id or path."""
    if model == DEFAULT_MODEL:
        return "blip"
    return re.sub(r"[^\w.-]+", "-", pathlib.PurePath(model).name.lower()).lstrip(".") or "model"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--records", help="records folder: supplies the mosaics (without --images) and receives the features"
    )
    parser.add_argument("--images", help="folder (or tar archive) of JPEG mosaics, each named after its clip")
    parser.add_argument(
        "--out", help="folder of the features, one file per clip (default: the records folder's name and .text)"
    )
    parser.add_argument("--model", default=DEFAULT_MODEL, help=f"hub id or local folder (default {DEFAULT_MODEL})")
    parser.add_argument("--revision", help="commit, tag or branch of the hub's repository")
    parser.add_argument("--name", help="name of the model in the records (default: blip, or the last part of --model)")
    parser.add_argument(
        "--question",
        action="append",
        type=_question,
        help=f"{', '.join(vqa.QUESTIONS)}, or your own as name=text; may be repeated (default holding)",
    )
    parser.add_argument(
        "--feature", action="append", choices=FEATURES, help="may be repeated (default token_ids)", dest="features"
    )
    parser.add_argument("--answers", default="yes,no", help="for answer_logits, separated by commas (default yes,no)")
    parser.add_argument("--batch_size", type=positive, default=16, help="mosaics per batch (default 16)")
    parser.add_argument("--max_tokens", type=positive, default=10, help="length of an answer at most (default 10)")
    parser.add_argument(
        "--precision", choices=vqa.PRECISIONS, default="auto", help="auto: half precision on a GPU, float32 on a CPU"
    )
    parser.add_argument(
        "--shard",
        type=commands.shard,
        help="i/n: process only part i (from 0) of n parts; nothing is added to the records",
    )
    return parser


def main(arguments: list[str] | None = None) -> None:
    parser = _parser()
    options = parser.parse_args(arguments)
    if not options.records and not (options.images and options.out):
        parser.error("give --records DIR, or --images DIR and --out DIR")
    questions = options.question or [_question("holding")]
    answers = tuple(answer.strip() for answer in options.answers.split(",") if answer.strip())
    name = options.name or _short_name(options.model)
    if not _NAME.fullmatch(name):
        parser.error(f"--name {name!r}: expected letters, digits, '.', '_' and '-'")
    if len(dict(questions)) < len(questions):
        parser.error(f"--question: the same name is given twice: {', '.join(name for name, _ in questions)}")
    if not answers:
        parser.error("--answers is empty; give at least one answer")
    request = Request(
        model=options.model,
        revision=options.revision,
        precision=options.precision,
        max_tokens=options.max_tokens,
        name=name,
        questions=dict(questions),
        features=tuple(dict.fromkeys(options.features or ["token_ids"])),
        answers=answers,
        batch_size=options.batch_size,
    )
    with plain_errors("interrupted; finished clips are kept, and the same command continues"):
        prepare(request, root=options.records, images=options.images, out=options.out, shard=options.shard)


if __name__ == "__main__":
    main()
