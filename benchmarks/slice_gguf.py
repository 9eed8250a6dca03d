"""A GGUF file with some layers in the sizes of MiMo-V2.5 and random weights, for llama-bench.

    python -m benchmarks.slice_gguf OUT.gguf --layers 5 [--vocab 8192] [--experts q4_0] [--dense q8_0]

Needs the package `gguf` (which ships llama.cpp's architectures), nothing of ours: one tensor is in memory at a time.
The first layer is global and dense, the last global, the others slide; all but the first have 256 experts, 8 for a
token, with routers of random weights. There is no tokenizer: llama-bench decodes random tokens.
"""

import argparse
from collections.abc import Callable

import gguf
import numpy as np

HIDDEN, HEADS, KEY, VALUE, WIDTH, DENSE_WIDTH = 4096, 64, 192, 128, 2048, 16384
EXPERTS, ACTIVE = 256, 8
GLOBAL_KV, SLIDING_KV = 4, 8
KINDS = {"q4_0": (gguf.GGMLQuantizationType.Q4_0, 32, 18), "q8_0": (gguf.GGMLQuantizationType.Q8_0, 32, 34)}
"""Name -> type, weights and bytes of a block; a block begins with its float16 scale."""

Make = Callable[[], np.ndarray]


class SliceFile:
    """Collects tensors by name, then writes them one after the other."""

    def __init__(self, path: str, experts: str, dense: str) -> None:
        self.writer = gguf.GGUFWriter(path, "mimo2", use_temp_file=False)
        self._experts, self._dense = experts, dense
        self._random = np.random.default_rng(0)
        self._makers: list[Make] = []

    def matrix(self, name: str, rows: int, cols: int, count: int = 0) -> None:
        """Add a quantised matrix, or `count` of them in one tensor."""
        kind, weights, size = KINDS[self._experts if count else self._dense]
        shape = (*((count,) if count else ()), rows, cols // weights * size)
        self.writer.add_tensor_info(name, shape, np.dtype(np.uint8), int(np.prod(shape)), raw_dtype=kind)
        self._makers.append(lambda: self._blocks(shape, size, 0.004))

    def floats(self, name: str, values: Make, shape: tuple[int, ...]) -> None:
        """Add a tensor of float32."""
        self.writer.add_tensor_info(name, shape, np.dtype(np.float32), 4 * int(np.prod(shape)))
        self._makers.append(lambda: np.ascontiguousarray(values(), np.float32))

    def normal(self, name: str, *shape: int) -> None:
        """Add normal float32 numbers."""
        self.floats(name, lambda: self._random.standard_normal(shape) * 0.05, shape)

    def constant(self, name: str, value: float, count: int) -> None:
        """Add equal float32 numbers."""
        self.floats(name, lambda: np.full(count, value), (count,))

    def write(self) -> None:
        """Write header and tensors."""
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_ti_data_to_file()
        for make in self._makers:
            self.writer.write_tensor_data(make())
        self.writer.close()

    def _blocks(self, shape: tuple[int, ...], size: int, scale: float) -> np.ndarray:
        one = self._random.integers(0, 256, (shape[-2], shape[-1] // size, size), np.uint8)
        one[..., :2] = np.frombuffer(np.float16(scale).tobytes(), np.uint8)
        one = one.reshape(shape[-2], shape[-1])
        # Rolled by whole rows: other bytes at every place, and made as fast as memory is copied.
        return one if len(shape) == 2 else np.stack([np.roll(one, 7 * i, axis=0) for i in range(shape[0])])


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--experts", choices=sorted(KINDS), default="q4_0")
    parser.add_argument("--dense", choices=sorted(KINDS), default="q8_0")
    arguments = parser.parse_args()
    sliding = [0 < i < arguments.layers - 1 for i in range(arguments.layers)]
    file = SliceFile(arguments.out, arguments.experts, arguments.dense)
    describe(file.writer, sliding, arguments.vocab)
    file.matrix("token_embd.weight", arguments.vocab, HIDDEN)
    file.matrix("output.weight", arguments.vocab, HIDDEN)
    file.constant("output_norm.weight", 1.0, HIDDEN)
    for i, slides in enumerate(sliding):
        add_layer(file, f"blk.{i}.", slides, has_experts=i > 0)
    file.write()


def describe(writer: gguf.GGUFWriter, sliding: list[bool], vocab: int) -> None:
    """State the shapes."""
    writer.add_name("slice of MiMo-V2.5, random weights")
    writer.add_block_count(len(sliding))
    writer.add_context_length(32768)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(DENSE_WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv([SLIDING_KV if slides else GLOBAL_KV for slides in sliding])
    writer.add_key_length(KEY)
    writer.add_value_length(VALUE)
    writer.add_sliding_window(128)
    writer.add_sliding_window_pattern([int(slides) for slides in sliding])
    writer.add_rope_dimension_count(64)
    writer.add_rope_freq_base(1e7)
    writer.add_float32("mimo2.rope.freq_base_swa", 1e4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_expert_count(EXPERTS)
    writer.add_expert_used_count(ACTIVE)
    writer.add_expert_feed_forward_length(WIDTH)
    writer.add_expert_weights_scale(1.0)
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    writer.add_vocab_size(vocab)
    writer.add_tokenizer_model("no_vocab")


def add_layer(file: SliceFile, prefix: str, slides: bool, has_experts: bool) -> None:
    """Add the tensors of a layer."""
    kv_heads = SLIDING_KV if slides else GLOBAL_KV
    file.constant(prefix + "attn_norm.weight", 1.0, HIDDEN)
    file.constant(prefix + "ffn_norm.weight", 1.0, HIDDEN)
    file.matrix(prefix + "attn_q.weight", HEADS * KEY, HIDDEN)
    file.matrix(prefix + "attn_k.weight", kv_heads * KEY, HIDDEN)
    file.matrix(prefix + "attn_v.weight", kv_heads * VALUE, HIDDEN)
    file.matrix(prefix + "attn_output.weight", HIDDEN, HEADS * VALUE)
    if slides:
        file.constant(prefix + "attn_sinks.weight", 0.0, HEADS)
    if not has_experts:
        file.matrix(prefix + "ffn_gate.weight", DENSE_WIDTH, HIDDEN)
        file.matrix(prefix + "ffn_up.weight", DENSE_WIDTH, HIDDEN)
        file.matrix(prefix + "ffn_down.weight", HIDDEN, DENSE_WIDTH)
        return
    file.normal(prefix + "ffn_gate_inp.weight", EXPERTS, HIDDEN)
    file.constant(prefix + "exp_probs_b.bias", 0.0, EXPERTS)
    file.matrix(prefix + "ffn_gate_exps.weight", WIDTH, HIDDEN, EXPERTS)
    file.matrix(prefix + "ffn_up_exps.weight", WIDTH, HIDDEN, EXPERTS)
    file.matrix(prefix + "ffn_down_exps.weight", HIDDEN, WIDTH, EXPERTS)


if __name__ == "__main__":
    main()
