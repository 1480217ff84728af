"""The DeepSeek family as data: every release, and what is often said wrongly of it.

Sources are the papers and model cards named in each row. A dagger marks what could be
read only in copies of the release (converted weights, listings), not in a paper, a
model card or an official repository. `deepseek_mini.lesson.atlas` draws and prints it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Release:
    """One released model, or models that were released together and differ in size.

    date: year and month of the release; where only the paper is dated, of the paper.
    total, active: billions of parameters, and of those that work on one token; of the
        larger or largest where several sizes share a row. None: not published.
    context: tokens, as published (128K is 131,072). preset: its name in this package.
    """

    name: str
    date: str
    sizes: str
    attention: str
    context: str
    changed: str
    source: str
    total: float | None = None
    active: float | None = None
    preset: str = ""


# fmt: off
LANGUAGE = (
    Release("Coder 1.3B", "2023-11", "1.35 B", "MHA", "16K",
        "Code in the order of its repository and fill-in-the-middle on half of it, so "
        "that it completes inside a file; RoPE base 1e5 and linear factor 4, for 16K",
        "2401.14196", 1.35, preset="deepseek-coder-1.3b"),
    Release("Coder 6.7B", "2023-11", "6.74 B", "MHA", "16K",
        "The same recipe, larger. A 5.7B sibling has one key-value head (MQA)†",
        "2401.14196", 6.74, preset="deepseek-coder-6.7b"),
    Release("Coder 33B", "2023-11", "33.3 B", "GQA", "16K",
        "8 key-value heads† for 56 query heads, to keep the cache small",
        "2401.14196", 33.3, preset="deepseek-coder-33b"),
    Release("LLM 7B", "2023-11", "6.91 B", "MHA", "4K",
        "LLaMA's shape on 2T tokens; the learning rate falls in steps, so that the "
        "long first stage can be continued with more data",
        "2401.02954", 6.91, preset="deepseek-llm-7b"),
    Release("LLM 67B", "2023-11", "67.4 B", "GQA", "4K",
        "8 key-value heads for 64 query heads: a cache 8 times smaller; made deeper "
        "(95 layers) rather than wider",
        "2401.02954", 67.4, preset="deepseek-llm-67b"),
    Release("MoE 16B", "2024-01", "16.4 B, 2.8 B active", "MHA", "4K",
        "64 small routed experts, 6 chosen, and 2 shared ones that always work: the "
        "knowledge of a large model for the compute of a small one",
        "2401.06066", 16.4, 2.8, "deepseek-moe-16b"),
    Release("Coder 7B v1.5", "2024-01", "6.91 B", "MHA", "4K†",
        "LLM 7B's shape†; the start of DeepSeekMath",
        "2402.03300 §2.3", 6.91),
    Release("V2", "2024-05", "236 B, 21 B active", "MLA", "128K",
        "One latent of 512 numbers and one RoPE key of 64 are cached in place of all "
        "keys and values; 160 experts + 2 shared, 6 chosen; YaRN for the context",
        "2405.04434", 236, 21, "deepseek-v2"),
    Release("V2-Lite", "2024-05", "15.7 B, 2.4 B active", "MLA", "32K",
        "V2 at a size for one GPU: 27 layers, 64 experts, queries not compressed",
        "2405.04434", 15.7, 2.4, "deepseek-v2-lite"),
    Release("Coder-V2", "2024-06", "236 B, 21 B active", "MLA", "128K",
        "6T more tokens on an unfinished V2, 60% of them code in 338 languages; also "
        "at Lite's size (16B), where it still learns fill-in-the-middle",
        "2406.11931", 236, 21, "deepseek-coder-v2"),
    Release("V2.5", "2024-09", "236 B, 21 B active", "MLA", "128K",
        "Chat and code in one model†",
        "V3 README", 236, 21),
    Release("V3", "2024-12", "671 B, 37 B active", "MLA", "128K",
        "256 experts + 1 shared, 8 chosen, balanced by a bias instead of a loss; "
        "predicts a second token ahead (MTP); trained in FP8, on 14.8T tokens",
        "2412.19437", 671, 37, "deepseek-v3"),
    Release("V3-0324", "2025-03", "671 B, 37 B active", "MLA", "128K",
        "V3 after a new post-training†",
        "model card", 671, 37),
    Release("V3.1", "2025-08", "671 B, 37 B active", "MLA", "128K",
        "V3's architecture; 839B more tokens at long context; thinks or answers at "
        "once, by its template; FP8 scales are powers of two. Terminus (2025-09) "
        "follows it",
        "model card", 671, 37),
    Release("V3.2-Exp", "2025-09", "671 B, 37 B active", "DSA", "128K",
        "An indexer picks 2,048 tokens for each query to attend to, so that long "
        "context costs less",
        "V3.2-Exp report", 671, 37),
    Release("V3.2", "2025-12", "671 B, 37 B active", "DSA", "128K",
        "The same shape with more reinforcement learning; Speciale is its variant "
        "for the most compute",
        "2512.02556", 671, 37),
    Release("V4-Flash", "2026-04", "284 B, 13 B active", "CSA", "1M",
        "Layers see a window of 128 tokens and compressed blocks of the rest; four "
        "residual streams (mHC); Muon; experts in FP4. Checkpoints 0731 and "
        "Vision-Exp follow",
        "2606.19348", 284, 13),
    Release("V4-Pro", "2026-04", "1.6 T, 49 B active", "CSA", "1M",
        "The same at 61 layers and 384 experts",
        "2606.19348", 1573, 49),
    Release("V4.1-Flash", "2026-09", "552 B + 196 B of tables, 16 B active", "CSA",
        "1M",
        "The second half of the layers reads one shared cache, 890 bytes a token "
        "(CED, CSA2); looks up word groups in tables (Engram); sees images",
        "config, report", 748, 16),
)

REASONING = (
    Release("DeepSeekMath 7B", "2024-02", "7 B", "MHA", "4K",
        "500B more tokens on Coder v1.5, with 120B of mathematics found on the web; "
        "GRPO: a group's mean is the baseline, so no value model is trained",
        "2402.03300", preset="deepseek-math-7b"),
    Release("Prover V1", "2024-05", "7 B", "MHA", "4K",
        "DeepSeekMath tuned on 8M statements and proofs in Lean 4 that models wrote",
        "2405.14333"),
    Release("ESFT models", "2024-07", "16 B", "MLA", "",
        "Expert-specialized fine-tuning on V2-Lite's shape: only the experts that a "
        "task uses are trained",
        "2407.01906"),
    Release("Prover V1.5", "2024-08", "7 B", "MHA", "4K",
        "GRPO on Lean's verdict, 0 or 1; a tree search that is rewarded for proof "
        "states it has not seen",
        "2408.08152"),
    Release("R1-Zero, R1", "2025-01", "671 B", "MLA", "128K",
        "V3's architecture and base weights; GRPO with rules as reward. R1 adds "
        "supervised stages, for answers that people can read",
        "2501.12948"),
    Release("R1-Distill Qwen 1.5B, 7B, 14B, 32B", "2025-01", "1.5 B to 32 B", "GQA",
        "128K†",
        "Qwen2.5 models that learned from R1's texts by supervised tuning alone",
        "2501.12948", preset="deepseek-r1-distill-qwen-1.5b"),
    Release("R1-Distill Llama 8B, 70B", "2025-01", "8 B; 70 B", "GQA", "128K†",
        "The same for Llama 3.1 and 3.3; its RoPE is stretched Llama's way",
        "2501.12948", preset="deepseek-r1-distill-llama-8b"),
    Release("Prover V2 7B, 671B", "2025-04", "7 B; 671 B", "MHA; MLA", "32K†",
        "V3 writes a sketch with holes, the 7B fills each hole; the joined proofs "
        "start the training of the large prover",
        "2504.21801"),
    Release("R1-0528", "2025-05", "671 B", "MLA", "128K",
        "R1 after a new post-training†",
        "model card"),
    Release("DeepSeekMath-V2", "2025-11", "671 B", "DSA", "128K†",
        "On V3.2-Exp's base: a verifier of proofs in plain language rewards a "
        "generator that checks itself",
        "2511.22570"),
)

VISION = (
    Release("VL 1.3B, 7B", "2024-03", "1.3 B; 7 B", "MHA", "4K",
        "576 image tokens; the 7B joins a SAM encoder, for detail, with SigLIP, for "
        "meaning",
        "2403.05525"),
    Release("Janus 1.3B", "2024-10", "1.3 B", "MHA†", "4K",
        "Sees and draws in one model, with an encoder for each: what is good for "
        "understanding is not good for drawing",
        "2410.13848"),
    Release("JanusFlow 1.3B", "2024-11", "1.3 B", "MHA†", "4K",
        "Draws by rectified flow instead of image tokens",
        "2411.07975"),
    Release("VL2 Tiny, Small, Base", "2024-12", "3 B; 16 B; 27 B", "MHA; MLA", "4K",
        "Mixture of experts; large images are cut into tiles of 384 x 384 pixels",
        "2412.10302"),
    Release("Janus-Pro 1B, 7B", "2025-01", "1 B; 7 B", "MHA†", "4K",
        "Janus with longer training, more data and a larger model",
        "2501.17811"),
    Release("OCR", "2025-10", "3 B, 0.57 B active", "MHA†", "",
        "Reads a page from 64 to 400 image tokens: a picture as compressed text",
        "2510.18234"),
    Release("OCR-2", "2026-01", "", "MHA", "",
        "Learned queries put the image's tokens in reading order",
        "2601.20552"),
)

# What is said, what is so, and where it stands.
CLAIMS = (
    ("DeepSeek-V2 uses MLA and GQA.",
     "MLA only. Its paper names GQA to compare cache sizes; GQA is in LLM 67B.",
     "2405.04434 §2.1"),
    ("DeepSeek LLM comes in sizes from 7B to 67B.",
     "There are exactly two, 7B (MHA) and 67B (GQA), base and chat each.",
     "DeepSeek-LLM README"),
    ("V2.5 is not an official model.",
     "It is: V3's README compares V3 with DeepSeek-V2.5-0905.",
     "DeepSeek-V3 README"),
    ("The E of ESFT stands for efficient.",
     "It stands for expert: Expert-Specialized Fine-Tuning.",
     "2407.01906"),
    ("The model id is deepseek-coder-7b-instruct.",
     "No such id: it is 6.7b-instruct, and 7B only with v1.5 (7b-base-v1.5).",
     "DeepSeek-Coder and DeepSeek-Math READMEs"),
    ("All DeepSeek models read 128K tokens.",
     "V2, Coder-V2, V3 and R1 do; LLM, MoE and Math 4K, Coder 16K, V2-Lite 32K, "
     "V4 1M.",
     "each paper"),
    ("V3 reads 64K tokens, and V3.1 doubled that.",
     "V3's weights were extended to 128K in its own training.",
     "2412.19437 §4.3"),
    ("V3 has a vocabulary of 129,280 tokens.",
     "128,000 BPE entries and the added tokens; 129,280 is the rows of its embedding.",
     "tokenizer.json, config.json"),
    ("R1 is a new architecture.",
     "R1 has V3's architecture and starts from V3-Base.",
     "2501.12948"),
    ("R1-Zero was trained with PPO and a learned reward model.",
     "GRPO, with rules for accuracy and format as the only reward.",
     "2501.12948 §2.2"),
    ("V3.1 uses Gated DeltaNet in most layers.",
     "Its config is V3's with another format of FP8 scales; every layer is MLA.",
     "DeepSeek-V3 config_v3.1.json"),
    ("DeepSeek trains fill-in-the-middle in the order suffix, prefix, middle.",
     "Prefix, suffix, middle in every model that has it: half of Coder's documents, "
     "a tenth of V3's.",
     "2401.14196 §3.1, 2412.19437 §4.1"),
    ("V4's attention sink keeps the first tokens in the cache.",
     "It is a learned number in the softmax's denominator, one for each head.",
     "transformers deepseek_v4"),
)
