"""Rebuild the bundled model `tiny`: a small Qwen2 that solves a third of the bundled task, so that RL has work to do.

    python recipes/build_tiny.py --output /tmp/tiny        about a minute on one core, deterministic from --seed

The shipped weights (dgpo_cli/bundled/tiny, seed 0, torch 2.13, transformers 5.23): whole chain right on the 512
held-out problems 0.355 +- 0.026 sampled at temperature 1, 0.414 greedy; 341,760 parameters;
SHA-256 of model.safetensors 1e6266474386f9c7d744c14df8858cc0c8feaeb223c50d4ff950f8e7ebbd1656.

A model of another form of the task (not shipped; train with the same data.chain_steps and data.filler):

    python recipes/build_tiny.py --output outputs/chain8 --chain-steps 8 --confused-facts 20 --stop 0.28
    python recipes/build_tiny.py --output outputs/filler4 --filler 4

The longer a chain, the fewer such a teacher has right: with 30 confused facts about .39 of 5 steps and .22 of 8, with
20 facts .35 of 8. `--stop` has to be below it.

The warm start is supervised learning from a sloppy teacher. The teacher has an error rate per *fact* (digit, sign,
operand): on most facts a small one, on a few confused facts a large one, always with the same wrong result. A slip
is carried on, so the rest of a teacher's chain follows from it. Slips on the many facts leave headroom in sampling,
the confused facts leave headroom in greedy decoding too.

Training stops on sampled accuracy, measured on problems of their own, and not after a time: learning here is a phase
transition, and its moment depends on the machine's rounding. For the same reason a rebuild gives the same bits only
on the same kind of machine with the same versions; the hash above identifies the shipped file, and no test rebuilds it.
"""

import argparse
import hashlib
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from dgpo_cli.data.digit_chain import MAX_OPERAND, Form, Problem, apply_step, held_out_problems, training_problems

SPECIAL_TOKENS = ("<pad>", "<eos>", "<unk>")
CHARACTERS = ("\n", *map(chr, range(32, 127)))
CONFUSED_ERROR = 0.5  # with 0.55 and more, some RL runs left a fact wrong in greedy decoding to the end
ORDINARY_ERROR = 0.03
CHECK_EVERY = 25
MAX_STEPS = 2000
BATCH_SIZE = 32
LEARNING_RATE = 2e-3
WARMUP_STEPS = 20

Fact = tuple[int, str, int]


@dataclass(frozen=True)
class Slip:
    """What the teacher does with one fact: writes `wrong_result` with probability `error`."""

    error: float
    wrong_result: int


def build_tokenizer() -> Qwen2Tokenizer:
    """One token a character: printable ASCII and newline, after pad, eos and unk.

    It is Qwen2's own byte-level tokenizer with no merges, and not a plainer character one: transformers 5 rebuilds
    the tokenizer of any model of type qwen2 as a Qwen2Tokenizer from vocabulary and merges, whatever tokenizer.json
    says about splitting. For the same reason characters outside the vocabulary vanish, and <unk> is never produced.
    """
    byte_level = {" ": "\u0120", "\n": "\u010a"}  # how byte-level vocabularies spell the two
    tokens = (*SPECIAL_TOKENS, *(byte_level.get(character, character) for character in CHARACTERS))
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return Qwen2Tokenizer(
        vocab=vocabulary,
        merges=[],
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="left",
        model_max_length=256,
    )


def build_model(tokenizer: Qwen2Tokenizer) -> Qwen2ForCausalLM:
    """A Qwen2 with random weights, 0.34 M parameters in float32."""
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        initializer_range=0.1,  # near 1/sqrt(hidden_size): with the usual 0.02 the transition comes three times as late
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        dtype="float32",
    )
    model = Qwen2ForCausalLM(config)
    model.generation_config = GenerationConfig(pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id)
    return model


def sloppy_teacher(generator: random.Random, confused_facts: int) -> dict[Fact, Slip]:
    """A slip for each of the 100 facts; the wrong result is one off the right one, as a miscount would be."""
    facts = [(digit, sign, operand) for digit in range(10) for sign in "+-" for operand in range(1, MAX_OPERAND + 1)]
    confused = set(generator.sample(facts, confused_facts))
    return {
        fact: Slip(
            error=CONFUSED_ERROR if fact in confused else ORDINARY_ERROR,
            wrong_result=(apply_step(*fact) + generator.choice((-1, 1))) % 10,
        )
        for fact in facts
    }


def taught_completion(problem: Problem, teacher: dict[Fact, Slip], generator: random.Random) -> str:
    """The teacher's chain for this problem, in the task's grammar but with its slips."""
    start, *steps = problem.prompt.split(" ")
    result = int(start[0])
    dots = start[1:]
    completion = start
    for step in steps:  # "-5=?", or with filler "-5=?.."; the last has none
        fact = (result, step[0], int(step[1]))
        slip = teacher[fact]
        result = slip.wrong_result if generator.random() < slip.error else apply_step(*fact)
        completion += f" {step[:3]}{result}{dots}"
    return f"{completion} #{result}"


def taught_batches(
    tokenizer: Qwen2Tokenizer, problems: list[Problem], seed: int, confused_facts: int
) -> Iterator[torch.Tensor]:
    """Batches of prompt, taught completion and eos, as ids [BATCH_SIZE, prompt + completion + 1]; each is used once."""
    generator = random.Random(seed)
    teacher = sloppy_teacher(generator, confused_facts)
    for first in range(0, len(problems), BATCH_SIZE):
        batch = problems[first : first + BATCH_SIZE]
        texts = [problem.prompt + taught_completion(problem, teacher, generator) + "<eos>" for problem in batch]
        yield torch.tensor(tokenizer(texts)["input_ids"])


@torch.inference_mode()
def problem_accuracies(
    model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, problems: list[Problem], samples: int
) -> list[float]:
    """Share of whole chains right, a number for each problem; sampled at temperature 1, or greedy when samples = 0."""
    sampling = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0} if samples else {"do_sample": False}
    prompts = torch.tensor(tokenizer([problem.prompt for problem in problems])["input_ids"])
    right = torch.zeros(len(problems))
    longest = len(problems[0].completion) + 1  # the stop token
    for _ in range(max(samples, 1)):
        ids = model.generate(prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=longest, **sampling)
        texts = tokenizer.batch_decode(ids[:, prompts.shape[1] :], skip_special_tokens=True)
        right += torch.tensor([text == problem.completion for text, problem in zip(texts, problems, strict=True)])
    return (right / max(samples, 1)).tolist()


def mean_and_interval(accuracies: list[float]) -> tuple[float, float]:
    """Mean over problems and the half-width of its 95% interval (the problems taken as a sample)."""
    count = len(accuracies)
    mean = sum(accuracies) / count
    variance = sum((accuracy - mean) ** 2 for accuracy in accuracies) / (count - 1)
    return mean, 1.96 * math.sqrt(variance / count)


def warm_start(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, asked: argparse.Namespace) -> None:
    """Train `model` in place until it is right on a share `stop` of 512 problems that it is not trained on."""
    seed, stop = asked.seed, asked.stop
    problems = training_problems(seed, 512 + MAX_STEPS * BATCH_SIZE, Form(asked.chain_steps, asked.filler))
    stopping_problems, taught_problems = problems[:512], problems[512:]
    prompt_tokens = len(problems[0].prompt)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.01)
    for step, ids in enumerate(taught_batches(tokenizer, taught_problems, seed, asked.confused_facts), start=1):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, step / WARMUP_STEPS)
        written = slice(prompt_tokens - 1, -1)
        logits = model(input_ids=ids).logits[:, written]  # [BATCH_SIZE, completion + 1, V]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, prompt_tokens:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % CHECK_EVERY == 0:
            accuracy, _ = mean_and_interval(problem_accuracies(model, tokenizer, stopping_problems, samples=1))
            print(f"step {step:4d}  loss {loss.item():.3f}  sampled accuracy {accuracy:.3f}", flush=True)
            if accuracy >= stop:
                return
    raise RuntimeError(f"accuracy stayed below {stop} for {MAX_STEPS} steps; try another --seed, or a smaller --stop")


def main() -> None:
    """Build, warm-start, save and measure."""
    parser = argparse.ArgumentParser(
        description="Rebuild the bundled model `tiny`, or one of another form of its task."
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, teacher and problems")
    parser.add_argument("--chain-steps", type=int, default=5, help="steps of a chain, as data.chain_steps")
    parser.add_argument("--filler", type=int, default=0, help="dots before each space, as data.filler")
    parser.add_argument("--confused-facts", type=int, default=30, help="facts of 100 that the teacher half gets wrong")
    parser.add_argument("--stop", type=float, default=0.33, help="sampled accuracy at which the warm start ends")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    warm_start(model, tokenizer, arguments)
    model.save_pretrained(arguments.output)
    tokenizer.save_pretrained(arguments.output)

    held_out = held_out_problems(Form(arguments.chain_steps, arguments.filler))
    sampled, half_width = mean_and_interval(problem_accuracies(model, tokenizer, held_out, samples=8))
    greedy, _ = mean_and_interval(problem_accuracies(model, tokenizer, held_out, samples=0))
    digest = hashlib.sha256((arguments.output / "model.safetensors").read_bytes()).hexdigest()
    print(f"held-out sampled {sampled:.3f} +- {half_width:.3f} (95%, 8 samples a problem), greedy {greedy:.3f}")
    print(f"sha256 {digest}  {arguments.output / 'model.safetensors'}")


if __name__ == "__main__":
    main()
