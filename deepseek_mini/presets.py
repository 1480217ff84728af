"""Every released model by name, and its miniature.

Numbers are those of the released `config.json` and of the papers named beside them.
Shapes marked "unverified" could not be read in a primary source; their parameter counts
agree with the published sizes (`deepseek_mini.count`).
"""

from dataclasses import replace

from deepseek_mini.config import (
    GQA,
    MLA,
    MTP,
    Config,
    Linear,
    Llama3,
    MoE,
    Rope,
    SwiGLU,
    Yarn,
)

HALF_SPLIT = Rope(theta=10_000.0, layout="half_split")  # as all Llama-shaped releases

# DeepSeek-LLM (arXiv 2401.02954, table 2). inter_dim: unverified.
LLM_7B = Config(
    vocab_size=102_400,
    dim=4096,
    n_layers=30,
    max_seq_len=4096,
    attention=GQA(n_heads=32, n_kv_heads=32, head_dim=128),
    dense=SwiGLU(inter_dim=11_008),
    rope=HALF_SPLIT,
)
LLM_67B = replace(
    LLM_7B,
    dim=8192,
    n_layers=95,
    attention=GQA(n_heads=64, n_kv_heads=8, head_dim=128),
    dense=SwiGLU(inter_dim=22_016),
)

# DeepSeek-Coder (arXiv 2401.14196, table 2 and §3.6: base 1e5 and linear factor 4 for
# 16K tokens). 33B: inter_dim and n_kv_heads unverified.
CODER_1_3B = Config(
    vocab_size=32_256,
    dim=2048,
    n_layers=24,
    max_seq_len=16_384,
    attention=GQA(n_heads=16, n_kv_heads=16, head_dim=128),
    dense=SwiGLU(inter_dim=5504),
    rope=replace(HALF_SPLIT, theta=100_000.0, scaling=Linear(factor=4)),
)
CODER_6_7B = replace(
    CODER_1_3B,
    dim=4096,
    n_layers=32,
    attention=GQA(n_heads=32, n_kv_heads=32, head_dim=128),
    dense=SwiGLU(inter_dim=11_008),
)
CODER_33B = replace(
    CODER_1_3B,
    dim=7168,
    n_layers=62,
    attention=GQA(n_heads=56, n_kv_heads=8, head_dim=128),
    dense=SwiGLU(inter_dim=19_200),
)

# DeepSeekMoE 16B (arXiv 2401.06066, §5.1). The dense layer's inter_dim: unverified.
MOE_16B = Config(
    vocab_size=102_400,
    dim=2048,
    n_layers=28,
    max_seq_len=4096,
    attention=GQA(n_heads=16, n_kv_heads=16, head_dim=128),
    dense=SwiGLU(inter_dim=10_944),
    rope=HALF_SPLIT,
    moe=MoE(
        n_routed_experts=64, n_shared_experts=2, n_activated_experts=6, inter_dim=1408
    ),
    n_dense_layers=1,
)

# DeepSeek-V2 (arXiv 2405.04434, §3.1.2; appendix B for Lite) and Coder-V2 (2406.11931),
# which has the same shapes. YaRN's mscale is what official code uses, not the paper's.
V2 = Config(
    vocab_size=102_400,
    dim=5120,
    n_layers=60,
    max_seq_len=163_840,
    attention=MLA(
        n_heads=128,
        q_lora_rank=1536,
        kv_lora_rank=512,
        qk_nope_head_dim=128,
        qk_rope_head_dim=64,
        v_head_dim=128,
    ),
    dense=SwiGLU(inter_dim=12_288),
    rope=Rope(
        scaling=Yarn(factor=40, original_seq_len=4096, mscale=1.0, mscale_all_dim=1.0)
    ),
    moe=MoE(
        n_routed_experts=160,
        n_shared_experts=2,
        n_activated_experts=6,
        inter_dim=1536,
        n_groups=8,
        n_limited_groups=3,
        route_scale=16.0,
    ),
    n_dense_layers=1,
)
V2_LITE = replace(
    V2,
    dim=2048,
    n_layers=27,
    attention=replace(V2.attention, n_heads=16, q_lora_rank=None),
    dense=SwiGLU(inter_dim=10_944),
    rope=Rope(
        scaling=Yarn(
            factor=40, original_seq_len=4096, mscale=0.707, mscale_all_dim=0.707
        )
    ),
    moe=MoE(
        n_routed_experts=64, n_shared_experts=2, n_activated_experts=6, inter_dim=1408
    ),
)

# DeepSeek-V3 (arXiv 2412.19437, §4.2) and R1, whose architecture is the same.
V3 = replace(
    V2,
    vocab_size=129_280,
    dim=7168,
    n_layers=61,
    dense=SwiGLU(inter_dim=18_432),
    moe=MoE(
        n_routed_experts=256,
        n_shared_experts=1,
        n_activated_experts=8,
        inter_dim=2048,
        score="sigmoid",
        bias=True,
        n_groups=8,
        n_limited_groups=4,
        norm_topk=True,
        route_scale=2.5,
    ),
    n_dense_layers=3,
    mtp=MTP(depth=1),
)

# The distilled R1 models keep the shape of the model that they were trained from
# (arXiv 2501.12948, §2.4): Qwen2.5-Math and Llama 3.1. Shapes: unverified.
R1_DISTILL_QWEN_1_5B = Config(
    vocab_size=151_936,
    dim=1536,
    n_layers=28,
    max_seq_len=131_072,
    attention=GQA(n_heads=12, n_kv_heads=2, head_dim=128, bias=True),
    dense=SwiGLU(inter_dim=8960),
    rope=HALF_SPLIT,
)
R1_DISTILL_QWEN_7B = replace(
    R1_DISTILL_QWEN_1_5B,
    vocab_size=152_064,
    dim=3584,
    attention=GQA(n_heads=28, n_kv_heads=4, head_dim=128, bias=True),
    dense=SwiGLU(inter_dim=18_944),
)
R1_DISTILL_LLAMA_8B = Config(
    vocab_size=128_256,
    dim=4096,
    n_layers=32,
    max_seq_len=131_072,
    attention=GQA(n_heads=32, n_kv_heads=8, head_dim=128),
    dense=SwiGLU(inter_dim=14_336),
    rope=replace(
        HALF_SPLIT,
        theta=500_000.0,
        scaling=Llama3(
            factor=8, original_seq_len=8192, low_freq_factor=1, high_freq_factor=4
        ),
    ),
    norm_eps=1e-5,
)

# The miniatures: the same mechanisms, at a size that two CPU cores train in minutes.
# They start from wider weights than the releases: so narrow a model, trained for so
# short a time, reaches a lower loss from 0.06 than from 0.02.
LLM_MINI = Config(
    vocab_size=1024,
    dim=128,
    n_layers=4,
    max_seq_len=256,
    attention=GQA(n_heads=4, n_kv_heads=4, head_dim=32),
    dense=SwiGLU(inter_dim=344),
    rope=HALF_SPLIT,
    init_std=0.06,
)
CODER_MINI = replace(
    LLM_MINI,
    max_seq_len=1024,
    rope=replace(HALF_SPLIT, theta=100_000.0, scaling=Linear(factor=4)),
)
# The sparse minis differ from it in what DeepSeek changed, and in nothing else.
MOE_MINI = replace(
    LLM_MINI,
    moe=MoE(
        n_routed_experts=16, n_shared_experts=1, n_activated_experts=4, inter_dim=24
    ),
    n_dense_layers=1,
)
V2_MINI = replace(
    MOE_MINI,
    attention=MLA(
        n_heads=4,
        q_lora_rank=48,
        kv_lora_rank=32,
        qk_nope_head_dim=24,
        qk_rope_head_dim=16,
        v_head_dim=24,
    ),
    rope=Rope(),
    moe=replace(MOE_MINI.moe, n_groups=4, n_limited_groups=2),
)
V3_MINI = replace(
    V2_MINI,
    moe=replace(
        V2_MINI.moe, score="sigmoid", bias=True, norm_topk=True, route_scale=2.5
    ),
    mtp=MTP(depth=1),
)

PRESETS = {
    "deepseek-llm-7b": LLM_7B,
    "deepseek-llm-67b": LLM_67B,
    "deepseek-coder-1.3b": CODER_1_3B,
    "deepseek-coder-6.7b": CODER_6_7B,
    "deepseek-coder-33b": CODER_33B,
    "deepseek-math-7b": LLM_7B,  # DeepSeek-LLM's shape (arXiv 2402.03300, §2.3)
    "deepseek-moe-16b": MOE_16B,
    "deepseek-v2-lite": V2_LITE,
    "deepseek-v2": V2,
    "deepseek-coder-v2-lite": V2_LITE,
    "deepseek-coder-v2": V2,
    "deepseek-v3": V3,
    "deepseek-r1": V3,
    "deepseek-r1-distill-qwen-1.5b": R1_DISTILL_QWEN_1_5B,
    "deepseek-r1-distill-qwen-7b": R1_DISTILL_QWEN_7B,
    "deepseek-r1-distill-llama-8b": R1_DISTILL_LLAMA_8B,
    "deepseek-llm-mini": LLM_MINI,
    "deepseek-coder-mini": CODER_MINI,
    "deepseek-moe-mini": MOE_MINI,
    "deepseek-v2-mini": V2_MINI,
    "deepseek-v3-mini": V3_MINI,
}
