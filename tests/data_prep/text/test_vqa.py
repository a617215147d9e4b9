"""Models that answer questions about pictures: every kind gives the expected answers, and anything else is refused."""

import os
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from data_prep import text_features
from data_prep.text import vqa
from mmcl_jax.data import records
from mmcl_jax.runtime.errors import PreparationError
from tests.helpers import tiny_vqa

QUESTION = vqa.QUESTIONS["holding"]
SAVERS = {
    "blip": tiny_vqa.save_blip,
    "blip2": tiny_vqa.save_blip2,
    "blip2_t5": lambda folder: tiny_vqa.save_blip2(folder, "t5"),
    "instructblip": lambda folder: tiny_vqa.save_blip2(folder, instruct=True),
    "llava": tiny_vqa.save_llava,
}


@pytest.fixture(scope="module", autouse=True)
def _offline():
    """Nothing here may wait for the hub."""
    os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Saved tiny models by kind, each made at its first use."""
    pytest.importorskip("transformers", reason="needs transformers (the extra `text`)")
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads of tiny models wait for each other more than they compute
    root = tmp_path_factory.mktemp("models")
    made: dict[str, pathlib.Path] = {}
    yield lambda kind: made[kind] if kind in made else made.setdefault(kind, SAVERS[kind](root / kind))
    torch.set_num_threads(threads)  # other tests compare rounding, which depends on them


def noise_pictures(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)) for _ in range(count)]


@pytest.mark.parametrize("kind", SAVERS)
def test_models_answer_and_give_their_features(folders, kind):
    import torch

    model = vqa.load_model(str(folders(kind)), max_tokens=4)
    assert (model.precision, model.device, model.revision, model.width) == ("float32", "cpu", None, 32)
    seen = model.see(model.load(noise_pictures(3)))
    answers = model.answer(seen, QUESTION, states=True, candidates=("yes", "no"))
    assert len(answers) == 3
    for answer in answers:
        assert answer.num_tokens <= 4
        assert answer.token_ids.shape == (3,)
        assert answer.token_ids[0] == model.start
        assert answer.token_ids[2 if answer.num_tokens else 1] == model.end
        assert answer.states.shape == (32,)
        assert (answer.log_probabilities < 0).all()
    with torch.inference_mode():
        context = model._context(seen, QUESTION)
        generated = model._generate(context)
        hidden, logits = model._decode(context, generated)
        yes = model.tokenizer.convert_tokens_to_ids("yes")
        expected = logits[:, 0].log_softmax(-1)[:, yes]
        pooled = [row[1 : 1 + len(ids)].mean(0) if ids else row[0] for ids, row in zip(generated, hidden, strict=True)]
        if kind != "blip":  # greedy: what it reads back is what it would have said
            logits[:, :, model.model.config.image_token_id] = -torch.inf
            for ids, row in zip(generated, logits, strict=True):
                assert row[: len(ids)].argmax(-1).tolist() == ids
    np.testing.assert_allclose([answer.states for answer in answers], torch.stack(pooled), atol=1e-6)
    np.testing.assert_allclose([answer.log_probabilities[0] for answer in answers], expected, atol=1e-4)
    (alone,) = model.answer(model.see(model.load(noise_pictures(3)[2:])), QUESTION, states=True)
    np.testing.assert_allclose(alone.states, answers[2].states, atol=1e-5)
    assert alone.text == answers[2].text


def test_blip_says_what_transformers_own_generate_says(folders):
    model = vqa.load_model(str(folders("blip")), max_tokens=5)
    pictures = noise_pictures(2)
    inputs = model.processor(images=pictures, text=[QUESTION] * 2, return_tensors="pt")
    expected = model.model.generate(**inputs, num_beams=3, do_sample=False, max_new_tokens=5)
    answers = model.answer(model.see(model.load(pictures)), QUESTION)
    for row, answer in zip(expected, answers, strict=True):
        assert answer.text == model.tokenizer.decode(row[1:], skip_special_tokens=True).strip()
        assert answer.token_ids[:2].tolist() == row[:2].tolist()


def test_prompts(folders):
    assert vqa.load_model(str(folders("blip2"))).prompt("a cup?") == "Question: a cup? Answer:"
    llava = vqa.load_model(str(folders("llava")))
    assert llava.prompt("a cup?") == "user <image> a cup? assistant :"


def without_weights(folder: pathlib.Path) -> None:
    (folder / "model.safetensors").unlink()


def with_half_the_weights(folder: pathlib.Path) -> None:
    from safetensors import numpy as tensors

    stored = tensors.load_file(folder / "model.safetensors")
    kept = {name: value for name, value in stored.items() if "text_encoder" not in name}
    tensors.save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def with_pickled_weights(folder: pathlib.Path) -> None:
    import torch
    from safetensors import torch as tensors

    torch.save(tensors.load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def cut_short(folder: pathlib.Path) -> None:
    os.truncate(folder / "model.safetensors", 1000)


def with_a_broken_config(folder: pathlib.Path) -> None:
    (folder / "config.json").write_text("{")


def of_another_task(folder: pathlib.Path) -> None:
    shutil.rmtree(folder)
    tiny_vqa.save_blip(folder, question_answering=False)


def of_no_kind(folder: pathlib.Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "notes.txt").touch()


def without_chat_template(folder: pathlib.Path) -> None:
    shutil.rmtree(folder)
    tiny_vqa.save_llava(folder, chat_template=None)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_weights, "cannot be loaded"),
        (with_pickled_weights, "cannot be loaded"),
        (cut_short, "cannot be loaded"),
        (with_a_broken_config, "cannot be loaded"),
        (with_half_the_weights, r"weights of BlipForQuestionAnswering are missing .* text_encoder\."),
        (of_another_task, r"a BLIP for another task \(BlipForConditionalGeneration\)"),
        (of_no_kind, r"not a model folder \(no config.json\)"),
        (without_chat_template, "without a chat template"),
        (shutil.rmtree, "no such folder"),
    ],
)
def test_what_is_no_model_is_refused(folders, tmp_path, spoil, message):
    folder = shutil.copytree(folders("blip"), tmp_path / "model")
    spoil(folder)
    with pytest.raises(PreparationError, match=message):
        vqa.load_model(str(folder))


def test_the_command_with_a_real_model_on_real_records(folders, tiny_records, tmp_path):
    root = shutil.copytree(tiny_records, tmp_path / "records")
    options = ["--question=holding", "--question=foot", "--max_tokens=2", "--batch_size=12"]
    features = [f"--feature={feature}" for feature in text_features.FEATURES]
    text_features.main([f"--records={root}", f"--model={folders('blip')}", "--name=tiny", *options, *features])
    opened = records.Records(root)
    assert len(opened.text_sets) == 7
    widths = {"token_ids": 3, "decoder_states": 32, "answer_logits": 2}
    for text_set in opened.text_sets:
        assert not opened.clips_without(range(len(opened)), text_set)
        assert opened.text_width(text_set) == widths[text_set.rsplit("/")[-1]]
    assert opened.text(5, "tiny/foot/token_ids")[0] == 4
    assert isinstance(opened.answer(5, "tiny/foot/token_ids"), str)
    assert opened.answer(5, "stand_in/holding/token_ids") is None
