import json
from pathlib import Path

from mimo_cli.chat.stop import stop_ids
from mimo_cli.checkpoint.config import ModelConfig
from tests.support.tiny_tokenizer import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
OWN = {TOKENIZER.added_tokens[token] for token in ("<|im_end|>", "<|endoftext|>", "<|mimo_audio_eod|>")}


def config(eos: object, vocab_size: int = 600) -> ModelConfig:
    return ModelConfig.from_dict(
        {
            "model_type": "mimo_v2",
            "vocab_size": vocab_size,
            "hidden_size": 8,
            "intermediate_size": 8,
            "num_hidden_layers": 1,
            "hybrid_layer_pattern": [0],
            "head_dim": 4,
            "v_head_dim": 4,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 64,
            "eos_token_id": eos,
        }
    )


def test_the_tokenizers_end_tokens_always_stop(tmp_path: Path) -> None:
    assert stop_ids(tmp_path, config(None), TOKENIZER) == OWN


def test_all_sources_are_joined(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 2], "do_sample": False}))
    assert stop_ids(tmp_path, config(3), TOKENIZER) == OWN | {1, 2, 3}
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": 4}))
    assert stop_ids(tmp_path, config([5]), TOKENIZER) == OWN | {4, 5}


def test_ids_outside_the_vocabulary_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 1561672, -1]}))
    assert stop_ids(tmp_path, config(None), TOKENIZER) == OWN | {7}


def test_a_model_with_fewer_rows_than_tokens_keeps_to_its_rows(tmp_path: Path) -> None:
    assert stop_ids(tmp_path, config(2, vocab_size=10), TOKENIZER) == {2}
