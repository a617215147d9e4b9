"""Tiny visual question answering models with random weights, saved as `save_pretrained` saves the real ones."""

import pathlib

WORDS = [
    *("whether", "the", "people", "are", "holding", "objects", "hands", "touching", "head", "foot", "question"),
    *("short", "answer", "yes", "no", "maybe", "a", "cup"),
]
_SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
_VISION = {**_SMALL, "image_size": 32, "patch_size": 16}
_CHAT_TEMPLATE = (
    "{% for message in messages %}user {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}"
    "assistant :"
)


def _seed() -> None:
    import torch

    torch.manual_seed(0)


def save_blip(folder: pathlib.Path, question_answering: bool = True) -> pathlib.Path:
    """BLIP, with a vocabulary of BERT's kind."""
    import transformers

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[DEC]", "?", ":", *WORDS]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    tokenizer = transformers.BertTokenizer(vocab=str(folder / "vocab.txt"))
    (folder / "vocab.txt").unlink()
    special = {"bos_token_id": 4, "pad_token_id": 0, "sep_token_id": 3, "eos_token_id": 3}
    text = {
        **_SMALL,
        **special,
        "vocab_size": len(vocabulary),
        "encoder_hidden_size": 32,
        "max_position_embeddings": 64,
    }
    config = transformers.BlipConfig(text_config=text, vision_config=_VISION, projection_dim=32)
    _seed()
    kind = transformers.BlipForQuestionAnswering if question_answering else transformers.BlipForConditionalGeneration
    kind(config).save_pretrained(folder)
    images = transformers.BlipImageProcessorPil(size={"height": 32, "width": 32})
    transformers.BlipProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def _tokenizer(*extra: str):
    """Whole words, parted at blanks and punctuation; ids 0 to 3 are padding, start, end and unknown."""
    import tokenizers
    import transformers
    from tokenizers import models, normalizers, pre_tokenizers, processors

    words = ["<pad>", "<s>", "</s>", "<unk>", *extra, "user", "assistant", "?", ":", *WORDS]
    tokenizer = tokenizers.Tokenizer(models.WordLevel({word: row for row, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=list(extra),
    )


def save_blip2(folder: pathlib.Path, language: str = "opt", instruct: bool = False) -> pathlib.Path:
    """BLIP-2 or InstructBLIP around a decoder (OPT) or an encoder and decoder (T5)."""
    import transformers

    tokenizer = _tokenizer("<image>")
    size = len(tokenizer)
    if language == "opt":
        text = transformers.OPTConfig(
            vocab_size=size,
            hidden_size=32,
            ffn_dim=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=64,
            word_embed_proj_dim=32,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    else:
        text = transformers.T5Config(
            vocab_size=size, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, pad_token_id=0, eos_token_id=2,
            decoder_start_token_id=0,
        )  # fmt: skip
    qformer = {**_SMALL, "encoder_hidden_size": 32, "vocab_size": size, "max_position_embeddings": 64}
    parts = {
        "vision_config": _VISION,
        "qformer_config": qformer,
        "text_config": text.to_dict(),
        "num_query_tokens": 4,
        "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
    }
    images = transformers.BlipImageProcessorPil(size={"height": 32, "width": 32})
    _seed()
    if instruct:
        model = transformers.InstructBlipForConditionalGeneration(transformers.InstructBlipConfig(**parts))
        processor = transformers.InstructBlipProcessor(images, tokenizer, _tokenizer(), num_query_tokens=4)
    else:
        model = transformers.Blip2ForConditionalGeneration(transformers.Blip2Config(**parts))
        processor = transformers.Blip2Processor(images, tokenizer, num_query_tokens=4)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def save_llava(folder: pathlib.Path, chat_template: str | None = _CHAT_TEMPLATE) -> pathlib.Path:
    """LLaVA: CLIP's vision model and Llama, with a chat template."""
    import transformers

    tokenizer = _tokenizer("<image>")
    text = transformers.LlamaConfig(
        **_SMALL, vocab_size=len(tokenizer), num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0
    )
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**_VISION, projection_dim=32),
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    _seed()
    transformers.LlavaForConditionalGeneration(config).save_pretrained(folder)
    images = transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    transformers.LlavaProcessor(
        images, tokenizer, patch_size=16, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=chat_template,
    ).save_pretrained(folder)  # fmt: skip
    return folder
