"""What a model folder holds, as one object for programs and as lines for people. Headers and JSON only; no weights."""

from pathlib import Path
from typing import Any

from mimo_cli.chat.template import RELEASE_SHA256, ChatTemplate
from mimo_cli.chat.tokenizer import Tokenizer
from mimo_cli.checkpoint.config import AttentionConfig, ModelConfig
from mimo_cli.checkpoint.contents import Contents
from mimo_cli.commands.model_choice import CONFIG_FILE, ModelChoice
from mimo_cli.errors import CheckpointError
from mimo_cli.store.opened import open_model
from mimo_cli.units import format_bytes, format_count

_MAX_PROBLEMS = 20


def model_facts(choice: ModelChoice) -> dict[str, Any]:
    """Return the facts of a model. Raises CheckpointError where config.json or the shards cannot be read at all."""
    config = ModelConfig.from_file(choice.folder / CONFIG_FILE)
    opened = open_model(choice.folder, config)
    index, contents = opened.index, opened.contents
    return {
        "schema": 1,
        "model": {"name": choice.name, "folder": str(choice.folder), "notice": choice.notice},
        "family": family(config, contents),
        "network": _network(config, contents),
        "storage": {
            "size_bytes": contents.size_bytes,
            "shards": len({index[name].shard for name in index}) + opened.record_files,
            "tensors": len(index),
            "parts": [
                {
                    "name": part.name,
                    "tensors": part.tensors,
                    "parameters": part.parameters,
                    "size_bytes": part.size_bytes,
                    "formats": dict(part.format_bytes),
                }
                for part in contents.parts
            ],
        },
        "tokenizer": _tokenizer(choice.folder),
        "template": _template(choice.folder),
        "notes": list(contents.notes),
        "lossy": list(opened.losses),
        "problems": [str(problem) for problem in contents.problems[:_MAX_PROBLEMS]],
        "num_problems": len(contents.problems),
    }


def family(config: ModelConfig, contents: Contents) -> str:
    """Tell which member of the family a configuration looks like: by what it holds, not by any name."""
    has_media = config.vision is not None or config.audio is not None
    is_mxfp4 = any("MXFP4" in part.format_bytes for part in contents.parts)
    if config.attention_projection_layout == "split":
        return "MiMo-V2-Flash kind: split q/k/v, text only" if not has_media else "split q/k/v, with media"
    kind = "MiMo-V2.6 kind: MXFP4 experts" if is_mxfp4 else "MiMo-V2.5 kind: fused qkv"
    if not has_media:
        return "MiMo-V2.5-Pro kind: fused qkv, text only" if not is_mxfp4 else f"{kind}, text only"
    senses = [name for name, part in (("vision", config.vision), ("audio", config.audio)) if part is not None]
    return f"{kind}, {' and '.join(senses)}"


def fact_lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the facts as names and values, without the table of parts."""
    network, storage, tokenizer, template = (facts[key] for key in ("network", "storage", "tokenizer", "template"))
    experts = f"{network['experts']}, {network['experts_per_token']} per token" if network["experts"] else "none"
    lines = [
        ("model", facts["model"]["name"]),
        ("folder", facts["model"]["folder"]),
        ("note", facts["model"]["notice"] or ""),
        ("family", facts["family"]),
        ("layers", _layers_text(network)),
        ("attention", f"global {_attention_text(network['global_attention'])}"),
        ("", f"sliding {_attention_text(network['sliding_attention'])}"),
        ("experts", experts),
        ("hidden", f"{format_count(network['hidden_size'])}, vocabulary {format_count(network['vocab_size'])}"),
        ("context", f"{format_count(network['context_tokens'])} tokens"),
        ("MTP", f"{network['mtp_modules']} modules" if network["mtp_modules"] else "none"),
        ("towers", ", ".join(network["towers"]) or "none"),
        ("size", f"{format_bytes(storage['size_bytes'])} in {storage['shards']} shards"),
        ("tokenizer", tokenizer.get("problem") or _tokenizer_text(tokenizer)),
        ("template", template.get("problem") or f"{template['source']}, sha256 {template['sha256'][:16]}"),
        ("", "" if template.get("problem") else _template_text(template)),
        *(("missing", note) for note in facts["notes"]),
        *(("lossy", loss) for loss in facts["lossy"]),
    ]
    return [(name, value) for name, value in lines if value]


def _network(config: ModelConfig, contents: Contents) -> dict[str, Any]:
    sliding = sum(config.is_sliding(i) for i in range(config.num_hidden_layers))
    return {
        "model_type": config.model_type,
        "layers": config.num_hidden_layers,
        "global_layers": config.num_hidden_layers - sliding,
        "sliding_layers": sliding,
        "moe_layers": len(config.moe_layers),
        "dense_layers": config.num_hidden_layers - len(config.moe_layers),
        "experts": config.n_routed_experts,
        "experts_per_token": config.num_experts_per_tok,
        "hidden_size": config.hidden_size,
        "vocab_size": config.vocab_size,
        "context_tokens": config.max_position_embeddings,
        "qkv": config.attention_projection_layout,
        "global_attention": _attention(config.global_attention),
        "sliding_attention": _attention(config.sliding_attention),
        "mtp_modules": contents.num_mtp,
        "towers": [name for name, there in (("vision", contents.has_vision), ("audio", contents.has_audio)) if there],
    }


def _attention(attention: AttentionConfig) -> dict[str, Any]:
    return {
        "heads": attention.num_heads,
        "kv_heads": attention.num_kv_heads,
        "head_dim": attention.head_dim,
        "v_head_dim": attention.v_head_dim,
        "window": attention.window,
        "has_sink": attention.has_sink,
    }


def _attention_text(attention: dict[str, Any]) -> str:
    window = f", window {attention['window']} + 1" if attention["window"] else ""
    sinks = ", sinks" if attention["has_sink"] else ""
    heads = f"{attention['heads']} heads, {attention['kv_heads']} kv"
    return f"{heads}, {attention['head_dim']}/{attention['v_head_dim']} wide{window}{sinks}"


def _layers_text(network: dict[str, Any]) -> str:
    kinds = f"{network['global_layers']} global, {network['sliding_layers']} sliding"
    return f"{network['layers']}: {kinds}; {network['dense_layers']} dense, {network['moe_layers']} MoE"


def _tokenizer(folder: Path) -> dict[str, Any]:
    try:
        tokenizer = Tokenizer.from_folder(folder)
    except CheckpointError as err:
        return {"problem": str(err)}
    return {"vocab_size": tokenizer.vocab_size, "added_tokens": len(tokenizer.added_tokens)}


def _tokenizer_text(tokenizer: dict[str, Any]) -> str:
    return f"{format_count(tokenizer['vocab_size'])} tokens, {tokenizer['added_tokens']} of them added"


def _template(folder: Path) -> dict[str, Any]:
    try:
        template = ChatTemplate.from_folder(folder)
    except CheckpointError as err:
        return {"problem": str(err)}
    return {
        "source": template.source,
        "sha256": template.sha256,
        "release_sha256": RELEASE_SHA256,
        "is_known": template.is_known,
    }


def _template_text(template: dict[str, Any]) -> str:
    if template["sha256"] == RELEASE_SHA256:
        return "the release's template of MiMo-V2.5"
    if template["is_known"]:
        return "renders as the release's template of MiMo-V2.5 does"
    return "differs from the release's template of MiMo-V2.5"
