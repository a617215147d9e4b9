"""Models that prepare data, at their real sizes with random weights: questions about pictures (BLIP), persons (YOLO).

Pictures are noise. A model is saved and then loaded and run by data_prep's own code, as `data_prep.text_features` and
`--boxes yolo` do; times include what a picture costs on the CPU (resizing, normalizing), from memory and in one thread.
BLIP answers one question about a batch with a search of three beams; with random weights an answer ends at the limit of
10 tokens, which is longer than real ones. Random YOLO weights detect nobody, so that there is nothing to suppress.

BLIP needs `pip install '.[text]'`, YOLO `pip install '.[yolo]'`; what is missing is left out.
"""

import argparse
import os
import pathlib
import tempfile

import numpy as np

from experiments.benchmark.harness import Contender, Program, UnavailableError, alternate
from experiments.benchmark.report import Report
from mmcl_jax.runtime.options import positive

_VIDEO_SHAPE, _MOSAIC_SHAPE = (1080, 1920, 3), (480, 480, 3)
_BLIP_TOKENS = 30_524  # BERT's and two more
_HEAD_WIDTH = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pictures", type=positive, default=16, help="at a time (default %(default)s)")
    parser.add_argument("--layers", type=positive, default=12, help="of BLIP's encoders and decoder (default 12)")
    parser.add_argument("--width", type=positive, default=768, help="of BLIP's layers, a multiple of 64 (default 768)")
    parser.add_argument("--image-size", type=positive, default=384, help="side of BLIP's pictures (default 384)")
    parser.add_argument("--yolo", default="yolo11n", metavar="NAME", help="one of ultralytics' (default %(default)s)")
    parser.add_argument("--rounds", type=positive, default=5, help="turns of each contender (default %(default)s)")
    parser.add_argument("--turn-seconds", type=float, default=2.0, help="length of a turn (default %(default)s)")


def run(options: argparse.Namespace, report: Report) -> None:
    sizes = {"layers": options.layers, "width": options.width, "image_size": options.image_size}
    precisions = ("float32",) if report.machine.backend == "cpu" else ("float16", "float32")
    questions = [
        Contender(
            f"BLIP, {precision}", question_program, {"pictures": options.pictures, "precision": precision, **sizes}
        )
        for precision in precisions
    ]
    persons = [Contender(options.yolo, person_program, {"pictures": options.pictures, "name": options.yolo})]
    for title, contenders in (("One question about a mosaic", questions), ("Persons in a video's picture", persons)):
        timings = alternate(
            contenders, rounds=options.rounds, turn_seconds=options.turn_seconds, ready_within=options.ready_within
        )
        title = f"{title}, {options.pictures} pictures at a time"
        report.timings(title, timings, units=options.pictures, unit="picture")


def question_program(pictures: int, precision: str, layers: int, width: int, image_size: int) -> Program:
    """BLIP's question answering model on a batch of mosaics."""
    try:
        import transformers
        from PIL import Image

        from data_prep.text import vqa
    except ImportError as error:
        raise UnavailableError(_missing(error, "text")) from error
    with tempfile.TemporaryDirectory() as folder:
        save_blip(pathlib.Path(folder), transformers, layers, width, image_size)
        model = vqa.load_model(folder, precision=precision)
    shown = [Image.fromarray(picture) for picture in random_pictures(pictures, _MOSAIC_SHAPE)]

    def work() -> list:
        return model.answer(model.see(model.load(shown)), vqa.QUESTIONS["holding"])

    parameters = sum(parameter.numel() for parameter in model.model.parameters())
    return Program(work, details={"device": model.device, "parameters": parameters})


def save_blip(folder: pathlib.Path, transformers, layers: int, width: int, image_size: int) -> None:
    """Writes a random BLIP of question answering and its processor as `save_pretrained` does; the words are made up."""
    import torch

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[DEC]"]
    words = [*special, "whether", "the", "people", "are", "holding", "objects", "?"]
    words += [f"word{place}" for place in range(len(words), _BLIP_TOKENS)]
    (folder / "vocab.txt").write_text("\n".join(words))
    tokenizer = transformers.BertTokenizer(vocab=str(folder / "vocab.txt"))
    (folder / "vocab.txt").unlink()
    shared = {"num_hidden_layers": layers, "num_attention_heads": max(1, width // _HEAD_WIDTH)}
    tokens = {name: special.index(token) for name, token in _TOKENS.items()}
    text = {"hidden_size": width, "intermediate_size": 4 * width, "encoder_hidden_size": width, **shared, **tokens}
    vision = {"hidden_size": width, "intermediate_size": 4 * width, "image_size": image_size, **shared}
    config = transformers.BlipConfig(text_config={**text, "vocab_size": _BLIP_TOKENS}, vision_config=vision)
    transformers.logging.disable_progress_bar()
    torch.manual_seed(0)
    transformers.BlipForQuestionAnswering(config).save_pretrained(folder)
    images = transformers.BlipImageProcessorPil(size={"height": image_size, "width": image_size})
    transformers.BlipProcessor(images, tokenizer).save_pretrained(folder)


_TOKENS = {"bos_token_id": "[DEC]", "pad_token_id": "[PAD]", "sep_token_id": "[SEP]", "eos_token_id": "[SEP]"}


def person_program(pictures: int, name: str) -> Program:
    """A detector on pictures of a video of NTU RGB+D's size."""
    for variable, value in (("YOLO_AUTOINSTALL", "false"), ("YOLO_OFFLINE", "true"), ("YOLO_VERBOSE", "false")):
        os.environ.setdefault(variable, value)
    try:
        import ultralytics

        from data_prep.images import yolo
    except ImportError as error:
        raise UnavailableError(_missing(error, "yolo")) from error
    with tempfile.TemporaryDirectory() as folder:
        weights = pathlib.Path(folder) / f"{name}.pt"
        ultralytics.YOLO(f"{name}.yaml", verbose=False).save(weights)
        detector = yolo.Detector(yolo.Settings(weights))
    shown = random_pictures(pictures, _VIDEO_SHAPE)
    return Program(lambda: detector.detect(shown), details={"device": detector.device})


def random_pictures(number: int, shape: tuple[int, int, int]) -> list[np.ndarray]:
    """Noise, uint8 RGB [H, W, 3]."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(number)]


def _missing(error: ImportError, kind: str) -> str:
    return f"no {error.name}; pip install '.[{kind}]'"
