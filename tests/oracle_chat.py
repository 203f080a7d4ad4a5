#!/usr/bin/python3
"""Golden outputs of chat templates, rendered by Jinja2 the way Hugging Face's apply_chat_template does.

    python3 tests/oracle_chat.py LLAMA_CPP [TINYLLAMA.gguf]

writes tests/golden/chat/*.txt. Each file is what tests/test_chat.c must get for one template and one conversation; the
conversations are listed in both places, by name. strftime_now is the first second of 2025-06-07, UTC.
"""

import datetime
import pathlib
import sys

import jinja2
import jinja2.sandbox

TEMPLATES = {  # name: (file in models/templates, begin-of-sequence, end-of-sequence)
    "r1-distill-qwen": ("deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    "r1-distill-llama": ("deepseek-ai-DeepSeek-R1-Distill-Llama-8B", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    "qwq": ("Qwen-QwQ-32B", "", "<|im_end|>"),
    "qwen3": ("Qwen-Qwen3-0.6B", "", "<|im_end|>"),
    "qwen2.5": ("Qwen-Qwen2.5-7B-Instruct", "", "<|im_end|>"),
    "llama-3.1": ("meta-llama-Llama-3.1-8B-Instruct", "<|begin_of_text|>", "<|eot_id|>"),
    "llama-3.2": ("meta-llama-Llama-3.2-3B-Instruct", "<|begin_of_text|>", "<|eot_id|>"),
    "llama-3.3": ("meta-llama-Llama-3.3-70B-Instruct", "<|begin_of_text|>", "<|eot_id|>"),
    "mistral-nemo": ("mistralai-Mistral-Nemo-Instruct-2407", "<s>", "</s>"),
    "hermes": ("NousResearch-Hermes-3-Llama-3.1-8B-tool_use", "<|begin_of_text|>", "<|im_end|>"),
}

THOUGHT = "<think>\nThe user greets me.\n</think>\n\nHello!"
CONVERSATIONS = {
    "user": [("user", "What is 2 + 2?")],
    "system": [("system", "Be brief."), ("user", "Grüße, 你好 & <b>'quotes\"</b>\n\ttab")],
    "history": [("user", "Hi"), ("assistant", THOUGHT), ("user", "And 3 < 4?")],
}


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def strftime_now(form):
    return datetime.datetime(2025, 6, 7).strftime(form)


def environment():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    env.globals.update(raise_exception=raise_exception, strftime_now=strftime_now)
    return env


def main():
    tree = pathlib.Path(sys.argv[1]) / "models" / "templates"
    out = pathlib.Path(__file__).parent / "golden" / "chat"
    sources = {name: ((tree / (file + ".jinja")).read_text(), bos, eos) for name, (file, bos, eos) in TEMPLATES.items()}
    if len(sys.argv) > 2:  # its template is inside the model
        sys.path.insert(0, str(pathlib.Path(sys.argv[1]) / "gguf-py"))
        import gguf

        field = gguf.GGUFReader(sys.argv[2]).fields["tokenizer.chat_template"]
        sources["tinyllama"] = (bytes(field.parts[field.data[0]]).decode(), "<s>", "</s>")
    for name, (source, bos, eos) in sources.items():
        for conversation, messages in CONVERSATIONS.items():
            try:
                text = environment().from_string(source).render(
                    messages=[{"role": role, "content": content} for role, content in messages],
                    bos_token=bos, eos_token=eos, add_generation_prompt=True, enable_thinking=True,
                )
            except jinja2.exceptions.TemplateError as error:
                text = f"error: {error}"
            (out / f"{name}.{conversation}.txt").write_text(text)


main()
