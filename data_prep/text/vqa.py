"""Visual question answering models with one interface: pictures and a question in, answers and features out.

There are two kinds, both loaded by Hugging Face transformers: BLIP's question answering model, as in the paper, and the
models that `AutoModelForImageTextToText` loads (BLIP-2, InstructBLIP and chat models). Weights are read only from
safetensors, and all must be present. Code in a checkpoint's folder is never run.
"""

import dataclasses
import inspect
import pathlib
import re
import warnings

import numpy as np

from mmcl_jax.runtime.errors import PreparationError

TOKEN_WIDTH = 3  # start, one token of the answer, end
# The first is that of the released code; in table 9 of the paper it is "Whether the person are holding object?".
QUESTIONS = {
    "holding": "whether the people are holding objects?",
    "head": "Whether the hands are touching head?",
    "foot": "Whether the hands are touching foot?",
}
PRECISIONS = ("auto", "float32", "float16", "bfloat16")
# How models without a chat template expect a question.
_PROMPTS = {"blip-2": "Question: {} Answer:", "instructblip": "Question: {} Short answer:"}
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_BLIP_BEAMS = 3  # the released BLIP searches with three beams


@dataclasses.dataclass(frozen=True)
class Answer:
    """The answer of a model about one picture.

    Attributes:
      text: the answer as text.
      num_tokens: number of tokens of the answer, without start and end.
      token_ids: float32 [3]: start, first token of the answer, end; padding after an empty answer.
      states: float32 [D], the decoder's last hidden state, averaged over the tokens of the answer (of the start, if the
        answer is empty); None if not requested.
      log_probabilities: float32 [A], of the candidate answers, without the end token; None if there are no candidates.
    """

    text: str
    num_tokens: int
    token_ids: np.ndarray
    states: np.ndarray | None
    log_probabilities: np.ndarray | None


def load_model(
    name: str, *, revision: str | None = None, precision: str = "auto", max_tokens: int = 10
) -> "VisualQuestionAnswering":
    """Loads a model, to the GPU if there is one.

    Args:
      name: a folder that `save_pretrained` wrote, or an id of the Hugging Face hub.
      revision: commit, tag or branch of the hub's repository.
      precision: one of `PRECISIONS`. 'auto' is float32 on a CPU; on a GPU it is the checkpoint's own precision if that
        is a half precision, else float16.
      max_tokens: number of tokens of an answer at most.

    Raises: PreparationError if the model does not exist, is of another kind, or lacks weights.
    """
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    folder = pathlib.Path(name)
    if folder.exists() and not (folder / "config.json").is_file():
        raise PreparationError(f"{name}: not a model folder (no config.json); give one that save_pretrained wrote")
    if not folder.exists() and not _HUB_ID.fullmatch(name):
        raise PreparationError(f"{name}: no such folder, and not an id of the Hugging Face hub such as owner/model")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    source = {"revision": revision, "trust_remote_code": False}
    try:
        config = transformers.AutoConfig.from_pretrained(name, **source)
        kind, loader = _kind(name, config)
        dtype = _dtype(precision, device, config)
        model, loading = loader.from_pretrained(
            name, config=config, dtype=dtype, use_safetensors=True, output_loading_info=True, **source
        )
        processor = transformers.AutoProcessor.from_pretrained(name, **source)
        # Pillow everywhere, so that features do not depend on whether torchvision is installed.
        processor.image_processor = transformers.AutoImageProcessor.from_pretrained(name, backend="pil", **source)
    except PreparationError:
        raise
    except Exception as error:  # transformers raises anything from ImportError to SafetensorError
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise PreparationError(
            f"{name}: cannot be loaded ({first_line}); give a folder that save_pretrained wrote or an id of the "
            "Hugging Face hub, with safetensors weights"
        ) from error
    missing = sorted([*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])])
    if missing:
        raise PreparationError(
            f"{name}: {len(missing)} weights of {type(model).__name__} are missing or have another shape, among them "
            f"{', '.join(missing[:3])}; use a complete checkpoint of that model"
        )
    return kind(model.eval().to(device), processor, max_tokens)


def _kind(name: str, config):
    """The wrapper of a model, and the class that loads it. Raises: PreparationError."""
    import transformers

    if config.model_type == "blip":
        if "BlipForQuestionAnswering" not in (config.architectures or []):
            raise PreparationError(
                f"{name}: a BLIP for another task ({', '.join(config.architectures or ['unnamed'])}); "
                "use one for question answering, such as Salesforce/blip-vqa-base"
            )
        return _Blip, transformers.BlipForQuestionAnswering
    return _ImageTextToText, transformers.AutoModelForImageTextToText


def _dtype(precision: str, device: str, config):
    import torch

    if precision != "auto":
        return getattr(torch, precision)
    if device == "cpu":
        return torch.float32
    return config.dtype if config.dtype in (torch.float16, torch.bfloat16) else torch.float16


class VisualQuestionAnswering:
    """A loaded model. `load` may run in any thread, all other methods in one thread.

    Attributes: `revision`, the hub's commit (None for a folder); `precision`; `device`; `width` of the states.
    """

    def __init__(self, model, processor, max_tokens: int):
        self.model = model
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.max_tokens = max_tokens
        self.revision = getattr(model.config, "_commit_hash", None)
        self.precision = str(model.dtype).removeprefix("torch.")
        self.device = str(model.device)
        self.start, self.end, self.pad = self._special_tokens()

    def load(self, pictures: list):
        """Converts PIL pictures of one size to the form that `see` takes."""
        return pictures

    def see(self, loaded):
        """Computes once what all questions about these pictures share."""
        return loaded

    def prompt(self, question: str) -> str:
        """The text that the model gets."""
        return question

    def answer(self, seen, question: str, *, states: bool = False, candidates: tuple[str, ...] = ()) -> list[Answer]:
        """Answers `question` about each picture.

        Args:
          seen: the result of `see`.
          question: as a person would ask it.
          states: whether to return the decoder's states.
          candidates: answers whose log-probabilities to return.

        Raises: PreparationError for a candidate without a token.
        """
        import torch

        with torch.inference_mode():
            context = self._context(seen, question)
            generated = self._generate(context)
            pooled, scores = [None] * len(generated), [None] * len(generated)
            if states:
                hidden, _ = self._decode(context, generated)
                hidden = hidden.float().cpu().numpy()
                pooled = [
                    row[1 : 1 + len(ids)].mean(axis=0) if ids else row[0]
                    for row, ids in zip(hidden, generated, strict=True)
                ]
            if candidates:
                columns = [self._log_probabilities(context, question, text, len(generated)) for text in candidates]
                scores = list(np.stack(columns, axis=1))
        return [self._answer(*parts) for parts in zip(generated, pooled, scores, strict=True)]

    def _answer(self, ids: list[int], states, log_probabilities) -> Answer:
        row = [self.start, *ids[: TOKEN_WIDTH - 2], self.end]
        row += [self.pad] * (TOKEN_WIDTH - len(row))
        text = self.tokenizer.decode(ids, skip_special_tokens=True).strip()
        return Answer(text, len(ids), np.array(row, dtype=np.float32), states, log_probabilities)

    def _log_probabilities(self, context, question: str, text: str, count: int) -> np.ndarray:
        """log P(answer `text`), float32 [N]: the sum over its tokens."""
        import torch

        ids = self._candidate(question, text)
        if not ids:
            raise PreparationError(f"the answer {text!r} has no token in this model; choose other --answers")
        _, logits = self._decode(context, [ids] * count)
        log_probabilities = torch.log_softmax(logits[:, : len(ids)].float(), dim=-1)
        chosen = torch.tensor(ids, device=log_probabilities.device).view(1, -1, 1).expand(count, -1, -1)
        return log_probabilities.gather(2, chosen).sum(dim=(1, 2)).cpu().numpy()

    def _candidate(self, question: str, text: str) -> list[int]:
        """Tokens of a candidate answer."""
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def _cut(self, rows) -> list[list[int]]:
        """Generated rows up to the first end token."""
        ends = {self.end, self.pad, *self._ends()}
        cut = []
        for row in rows.tolist():
            length = next((place for place, token in enumerate(row) if token in ends), len(row))
            cut.append(row[:length])
        return cut

    def _padded(self, rows: list[list[int]]):
        """Rows of tokens as one tensor [N, L]; the padding does not affect the tokens before it."""
        import torch

        length = max(map(len, rows))
        return torch.tensor([row + [self.pad] * (length - len(row)) for row in rows], device=self.model.device).view(
            len(rows), length
        )

    def _ends(self) -> list[int]:
        """Every token that ends an answer."""
        ends = self.model.generation_config.eos_token_id
        return ends if isinstance(ends, list) else [ends]

    def _special_tokens(self) -> tuple[int, int, int]:
        """Start, end and padding."""
        raise NotImplementedError

    def _context(self, seen, question: str):
        """Everything that the decoder needs besides the answer."""
        raise NotImplementedError

    def _generate(self, context) -> list[list[int]]:
        """Tokens of the answers, without start and end."""
        raise NotImplementedError

    def _decode(self, context, rows: list[list[int]]):
        """Decodes given answers: hidden states [N, 1 + L, D] and logits [N, 1 + L, tokens], start first."""
        raise NotImplementedError


class _Blip(VisualQuestionAnswering):
    """BLIP: encodes the picture once; each question attends to it, and a decoder answers."""

    @property
    def width(self) -> int:
        return self.model.config.text_config.hidden_size

    def load(self, pictures: list):
        return self.processor.image_processor(images=pictures, return_tensors="pt").pixel_values

    def see(self, loaded):
        import torch

        with torch.inference_mode():
            return self.model.vision_model(
                pixel_values=loaded.to(self.model.device, self.model.dtype)
            ).last_hidden_state

    def _special_tokens(self):
        config = self.model.config.text_config
        return config.bos_token_id, config.sep_token_id, config.pad_token_id

    def _context(self, seen, question: str):
        tokens = self.tokenizer([question], return_tensors="pt").input_ids.to(self.model.device)
        return self.model.text_encoder(
            input_ids=tokens.expand(len(seen), -1),
            encoder_hidden_states=seen,
            encoder_attention_mask=_ones(seen),
        ).last_hidden_state

    def _generate(self, context):
        rows = self.model.text_decoder.generate(
            input_ids=self._padded([[self.start]] * len(context)),
            encoder_hidden_states=context,
            encoder_attention_mask=_ones(context),
            eos_token_id=self.end,
            pad_token_id=self.pad,
            num_beams=_BLIP_BEAMS,
            do_sample=False,
            max_new_tokens=self.max_tokens,
        )
        return self._cut(rows[:, 1:])

    def _decode(self, context, rows):
        decoder = self.model.text_decoder
        hidden = decoder.bert(
            input_ids=self._padded([[self.start, *row] for row in rows]),
            encoder_hidden_states=context,
            encoder_attention_mask=_ones(context),
            is_decoder=True,
        ).last_hidden_state
        return hidden, decoder.cls(hidden)


class _ImageTextToText(VisualQuestionAnswering):
    """BLIP-2, InstructBLIP and chat models. All pictures of a batch have one size, so no prompt needs padding."""

    def __init__(self, model, processor, max_tokens: int):
        self._has_encoder = not getattr(model.config, "use_decoder_only_language_model", True)
        super().__init__(model, processor, max_tokens)
        if self.model.config.model_type not in _PROMPTS and not processor.chat_template:
            raise PreparationError(
                f"{model.name_or_path}: a model of type {model.config.model_type!r} without a chat template; use one "
                "that was trained to answer questions"
            )

    @property
    def width(self) -> int:
        return self.model.get_output_embeddings().weight.shape[1]

    def prompt(self, question: str) -> str:
        template = _PROMPTS.get(self.model.config.model_type)
        if template:
            return template.format(question)
        return self.processor.apply_chat_template(self._conversation(question), **_CHAT)

    def _special_tokens(self):
        end = self.tokenizer.eos_token_id
        if end is None:
            end = self._ends()[0]
        pad = end if self.tokenizer.pad_token_id is None else self.tokenizer.pad_token_id
        if self._has_encoder:
            start = self.model.config.text_config.decoder_start_token_id
        else:
            start = end if self.tokenizer.bos_token_id is None else self.tokenizer.bos_token_id
        return start, end, pad

    def _conversation(self, question: str, *pictures) -> list[dict]:
        images = [{"type": "image", "image": picture} for picture in pictures] or [{"type": "image"}]
        return [{"role": "user", "content": [*images, {"type": "text", "text": question}]}]

    def _candidate(self, question: str, text: str) -> list[int]:
        """Tokens of a candidate answer after the prompt; after a colon they begin with a space."""
        alone = super()._candidate(question, text)
        if self._has_encoder:
            return alone
        prompt = self.prompt(question)
        before = super()._candidate(question, prompt)
        joined = super()._candidate(question, prompt + (" " if prompt.endswith(":") else "") + text)
        return joined[len(before) :] if joined[: len(before)] == before else alone

    def _context(self, seen, question: str):
        if self.model.config.model_type in _PROMPTS:
            inputs = self.processor(images=seen, text=[self.prompt(question)] * len(seen), return_tensors="pt")
        else:
            conversations = [self._conversation(question, picture) for picture in seen]
            inputs = self.processor.apply_chat_template(
                conversations, tokenize=True, return_dict=True, return_tensors="pt", **_CHAT
            )
        return dict(inputs.to(self.model.device, self.model.dtype))

    def _generate(self, context):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sampling options in a checkpoint, which greedy search ignores
            rows = self.model.generate(
                **context,
                num_beams=1,
                do_sample=False,
                max_new_tokens=self.max_tokens,
                pad_token_id=self.pad,
                suppress_tokens=[self.model.config.image_token_id],  # it would stand for a missing picture
            )
        return self._cut(rows[:, 1 if self._has_encoder else context["input_ids"].shape[1] :])

    def _decode(self, context, rows):
        if self._has_encoder:
            starts = self._padded([[self.start, *row] for row in rows])
            outputs = self.model(**context, decoder_input_ids=starts, output_hidden_states=True)
            outputs = outputs.language_model_outputs
            return outputs.decoder_hidden_states[-1], outputs.logits
        extended = self._extended(context, self._padded(rows))
        length = extended["input_ids"].shape[1] - context["input_ids"].shape[1] + 1
        if "logits_to_keep" in inspect.signature(self.model.forward).parameters:
            extended["logits_to_keep"] = length
        outputs = self.model(**extended, output_hidden_states=True, use_cache=False)
        outputs = getattr(outputs, "language_model_outputs", outputs)
        return outputs.hidden_states[-1][:, -length:], outputs.logits[:, -length:]

    def _extended(self, context: dict, rows) -> dict:
        """The inputs with `rows` after the prompt; masks and other values per token repeat their last value."""
        import torch

        shape = context["input_ids"].shape
        extended = dict(context)
        for name, value in context.items():
            if value.shape[:2] == shape and not name.startswith("qformer_"):
                more = rows if name == "input_ids" else value[:, -1:].expand(-1, rows.shape[1], *value.shape[2:])
                extended[name] = torch.cat([value, more.to(value.dtype)], dim=1)
        return extended


# Models that can output their reasoning are told not to; other templates ignore the option.
_CHAT = {"add_generation_prompt": True, "enable_thinking": False}


def _ones(encoded):
    """The attention mask of encoded tokens without padding."""
    import torch

    return torch.ones(encoded.shape[:2], dtype=torch.long, device=encoded.device)
