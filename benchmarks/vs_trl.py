"""The same GRPO step by dgpo and by TRL: CPU seconds, peak memory, and the time until the first step is done.

    .venv/bin/python benchmarks/vs_trl.py                        every case, in ten minutes or more; JSON on stdout
    .venv/bin/python benchmarks/vs_trl.py --cases tiny --repeats 1

    tiny, tiny_kl    the bundled model, 16 prompts x 8 completions x 48 tokens; without KL and with kl_coef 0.04
    wide             a random model with V = 151,936 and D = 64: 2 x 8 x 16
    same             no times: TRL trains on the completions that dgpo drew, for three steps. Do losses, gradient norms
                     and weights agree?

Both sides get the same model, prompts in the same order, reward function, learning rate and number of tokens: each
completion is as long as it may be, for the end token is one that is never drawn, and rewards of a group differ.
Both train on the whole batch at once, in float32, on one thread of one core, without checkpoints, evaluations and
trackers. TRL has gradient checkpointing off and a correction of its KL term that GRPO does not know.

Each figure is CPU time, of the process and its children; the two sides take turns. A step is the median of `--steps`
in each process, and of the processes; `first_step` counts from the command to the end of the first step. TRL 1.16 gets
an environment of its own (tests/install_trl.sh).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TINY = {"prompts": 16, "group": 8, "tokens": 48, "model": "tiny", "kl": 0.0}
CASES: dict[str, dict[str, Any]] = {
    "tiny": TINY,
    "tiny_kl": {**TINY, "kl": 0.04},
    "wide": {**TINY, "prompts": 2, "tokens": 16, "model": "wide"},
}
NEVER_DRAWN = "~"  # the end token of both sides
LR = 5e-4
EPS = {"measured": 1e-8, "same": 1e-3}  # of Adam: a small one blows rounding up where a gradient is all but 0
SEED = 0
REWARD = '''\
"""A reward that differs within each group, of token ids alone: texts of special tokens differ between the two."""

import zlib


def score(prompts, completions, completion_ids, **_):
    return [zlib.crc32(repr([int(one) for one in ids]).encode()) % 1000 / 1000 for ids in completion_ids]
'''


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=[*CASES, "same"], default=[*CASES, "same"])
    parser.add_argument("--steps", type=int, default=5, help="measured in each process, after the first")
    parser.add_argument("--repeats", type=int, default=3, help="processes of each side")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        task = json.loads(options.child)
        (dgpo_steps if task["side"] == "dgpo" else trl_steps)(task)
        return
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        made = Workshop(Path(scratch), options.steps)
        for name in options.cases:
            print(f"{name} ...", file=sys.stderr)
            report[name] = made.same() if name == "same" else made.measured(CASES[name], options.repeats)
            print(json.dumps(report[name]), file=sys.stderr)
    print(json.dumps(report, indent=2))


class Workshop:
    """Makes what both sides train on in a folder, and runs them there."""

    def __init__(self, folder: Path, steps: int) -> None:
        self.folder, self.steps, self.runs = folder, steps, 0
        (folder / "reward.py").write_text(REWARD)
        save_models(folder)
        install = ["bash", str(ROOT / "tests/install_trl.sh")]
        env = os.environ | {"PYTHON": sys.executable}
        found = subprocess.run(install, env=env, check=True, stdout=subprocess.PIPE, text=True)
        self.interpreters = {"dgpo": sys.executable, "trl": found.stdout.strip()}

    def measured(self, case: dict[str, Any], repeats: int) -> dict[str, Any]:
        """Medians of both sides and their ratios."""
        task = case | {"steps": self.steps + 1, "prompts_file": self._prompts(case, self.steps + 2)}
        found: dict[str, list[dict[str, Any]]] = {"dgpo": [], "trl": []}
        load = []
        for turn in range(repeats):
            for side in found if turn % 2 == 0 else reversed(found):
                load.append(os.getloadavg()[0])
                found[side].append(self._run(side, task, turn % (os.cpu_count() or 1)))
        tokens = {tuple(one["tokens"]) for runs in found.values() for one in runs}
        if tokens != {(case["prompts"] * case["group"] * case["tokens"],) * (self.steps + 1)}:
            sys.exit(f"the sides did not draw equally many tokens: {tokens}")
        measures = {
            "step": lambda one: statistics.median(one["seconds"][1:]),
            "rollout": lambda one: statistics.median(one["rollout"][1:]),
            "first_step": lambda one: one["first_step"],
            "first_step_wall": lambda one: one["first_step_wall"],
            "peak_mib": lambda one: one["peak_mib"],
        }
        report: dict[str, Any] = {}
        for name, measure in measures.items():
            ours, theirs = (statistics.median(map(measure, found[side])) for side in ("dgpo", "trl"))
            report[name] = {"dgpo": round(ours, 3), "trl": round(theirs, 3), "ratio": round(ours / theirs, 3)}
        # Of neighbours in time: what else the machine did then weighs on both alike.
        pairs = zip(found["dgpo"], found["trl"], strict=True)
        report["step"]["ratios"] = [round(measures["step"](a) / measures["step"](b), 3) for a, b in pairs]
        report["load"] = [round(min(load), 1), round(max(load), 1)]
        return report

    def same(self) -> dict[str, Any]:
        """How far the two are apart after the same completions, for each KL coefficient."""
        return {f"kl {case['kl']}": self._distance(case) for case in (CASES["tiny"], CASES["tiny_kl"])}

    def _distance(self, case: dict[str, Any]) -> dict[str, Any]:
        steps = 3
        task = case | {"steps": steps, "prompts_file": self._prompts(case, steps + 1), "store": True}
        ours = self._run("dgpo", task)
        theirs = self._run("trl", task | {"completions": ours["rollouts"]})
        import torch
        from safetensors.torch import load_file

        before = load_file(self.folder / "tiny/model.safetensors")
        a, b = load_file(ours["weights"]), load_file(theirs["weights"])
        moved = torch.cat([(a[name] - before[name]).flatten() for name in before])
        apart = torch.cat([(a[name] - b[name]).flatten() for name in before])
        return {
            "loss": [ours["loss"], theirs["loss"]],
            "grad_norm": [ours["grad_norm"], theirs["grad_norm"]],
            "weights_apart_over_moved": float(apart.norm() / moved.norm()),
        }

    def _run(self, side: str, task: dict[str, Any], core: int | None = None) -> dict[str, Any]:
        self.runs += 1
        task = task | {"side": side, "folder": str(self.folder), "run": str(self.folder / f"run{self.runs}")}
        env = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        env |= {"TRL_EXPERIMENTAL_SILENCE": "1"} | ({"PYTHONPATH": str(ROOT)} if side == "dgpo" else {})
        line = [self.interpreters[side], __file__, "--child", json.dumps(task)]
        done = subprocess.run(
            line,
            env=env,
            cwd=self.folder,
            capture_output=True,
            text=True,
            preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),
        )
        results = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        if done.returncode or not results:
            sys.exit(f"{side} ended with {done.returncode}:\n{done.stderr[-4000:]}")
        result: dict[str, Any] = json.loads(results[0].removeprefix("RESULT "))
        return result

    def _prompts(self, case: dict[str, Any], steps: int) -> str:
        """A file of prompts, in the order in which dgpo draws them: TRL reads them as they stand."""
        from dgpo_cli.core.seeds import drawn_index
        from dgpo_cli.data.digit_chain import problem_from_number

        count = case["prompts"] * steps
        rows = [problem_from_number(number * 1009) for number in range(count)]
        path = self.folder / f"prompts{count}.jsonl"
        path.write_text("".join(json.dumps({"prompt": one.prompt, "answer": one.answer}) + "\n" for one in rows))
        drawn = [rows[drawn_index(SEED, draw, count)].prompt for draw in range(count)]
        path.with_suffix(".drawn").write_text(json.dumps(drawn))
        return str(path)


def save_models(folder: Path) -> None:
    """The bundled model and a wide random one; the end token of both is never drawn."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    bundled = ROOT / "dgpo_cli/bundled/tiny"
    tokenizer = AutoTokenizer.from_pretrained(bundled, eos_token=NEVER_DRAWN)
    torch.manual_seed(0)
    wide = Qwen2Config(
        vocab_size=151_936,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
    )
    models = {"tiny": AutoModelForCausalLM.from_pretrained(bundled), "wide": Qwen2ForCausalLM(wide)}
    for name, model in models.items():
        for holder in (model.config, model.generation_config):
            holder.eos_token_id, holder.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


class Watch:
    """CPU seconds of this process and its children since it began, and the most memory that they held together."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.rollouts: list[float] = []
        self.wall: list[float] = []

    def cpu(self) -> float:
        import psutil

        alive = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
        return float(sum(os.times()[:4]) + sum(times.user + times.system for times in alive))

    def step_ended(self) -> None:
        import psutil

        self.ends.append(self.cpu())
        self.wall.append(time.time() - psutil.Process().create_time())

    def rollout(self, draw: Any) -> Any:
        """`draw`, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.process_time()
            drawn = draw(*args, **kwargs)
            self.rollouts.append(time.process_time() - started)
            return drawn

        return timed

    def result(self, **more: Any) -> None:
        ends = self.ends
        steps = [end - start for start, end in zip([0.0, *ends], ends, strict=False)]
        found = {
            "seconds": steps,
            "rollout": self.rollouts,
            "first_step": ends[0],
            "first_step_wall": self.wall[0],
            "peak_mib": peak_mib(),
        }
        print("RESULT " + json.dumps(found | more), flush=True)


def peak_mib() -> float:
    """The highest resident sizes of this process and of its living children, added up."""
    import psutil

    total = 0
    for one in (psutil.Process(), *psutil.Process().children(recursive=True)):
        lines = Path(f"/proc/{one.pid}/status").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return total / 1024


def eps_of(task: dict[str, Any]) -> float:
    return EPS["same" if task.get("store") else "measured"]


def dgpo_steps(task: dict[str, Any]) -> None:
    """`dgpo train` in this process; a step ends where the loop goes on to the next."""
    from dgpo_cli import jobs
    from dgpo_cli.cli import main as dgpo
    from dgpo_cli.large_imports import imported

    watch, folder, steps = Watch(), Path(task["folder"]), task["steps"]
    final = steps if task.get("store") else steps + 1  # the last step of a run ends with a checkpoint

    run_here = jobs.run_here

    def hooked(command: str, configs: list[Any], folder: Path) -> None:
        # As the command does a moment later, so that its parts can be hooked.
        imported(f"dgpo_cli.commands.{command}")
        imported("dgpo_cli.engines.transformers_engine")
        from dgpo_cli.engines.transformers_engine import TransformersEngine
        from dgpo_cli.training.loop import Trainer

        step, generate = Trainer._step, TransformersEngine.generate

        def timed(self: Any, number: int) -> None:
            step(self, number)
            watch.step_ended()
            if number == steps:
                report()

        Trainer._step = timed  # type: ignore[assignment,method-assign]
        TransformersEngine.generate = watch.rollout(generate)  # type: ignore[method-assign]
        run_here(command, configs, folder)

    def report() -> None:
        run = Path(task["run"])
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        more: dict[str, Any] = {key: [row[key] for row in rows[:steps]] for key in ("loss", "grad_norm")}
        if task.get("store"):
            drawn = [line for path in sorted(run.glob("rollouts/*")) for line in path.read_text().splitlines()]
            more["rollouts"] = str(run / "drawn.json")
            Path(more["rollouts"]).write_text(json.dumps([json.loads(line)["token_ids"] for line in drawn]))
            more["weights"] = str(next(run.glob("**/model.safetensors")))
        watch.result(tokens=[row["tokens/generated"] for row in rows[:steps]], **more)

    jobs.run_here = hooked
    words = {
        "algo": "grpo",
        "algo.kl_coef": task["kl"],
        "model.path": folder / task["model"],
        "data.path": task["prompts_file"],
        "data.prompt_key": "prompt",
        "data.answer_key": "answer",
        "reward.path": f"{folder / 'reward.py'}:score",
        "benchmark": "none",
        "logger": "none",
        "steps": final,
        "seed": SEED,
        "rollout.prompts_per_step": task["prompts"],
        "rollout.group_size": task["group"],
        "rollout.max_completion_tokens": task["tokens"],
        "rollout.save": "all" if task.get("store") else "none",
        "optim.lr": LR,
        "optim.eps": eps_of(task),
        "optim.betas": "[0.9,0.999]",
        "optim.weight_decay": 0.0,
        "optim.grad_clip": 1.0,
        "optim.schedule": "constant",
        "optim.warmup_steps": 0,
        "optim.minibatches": 1,
        "optim.tokens_per_microbatch": 2**20,
        "optim.grad_norms_every": 0,
        "optim.grad_cos_every": 0,
        "checkpoint.every": 0,
        "engine.batch_size": task["prompts"] * task["group"],
        "strategy.threads": 1,
        "hydra.run.dir": task["run"],
    }
    sys.exit(dgpo(["train", *(f"{key}={value}" for key, value in words.items())]))


def trl_steps(task: dict[str, Any]) -> None:
    """GRPOTrainer on the same; a step ends where its callbacks say so."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer  # type: ignore[import-not-found]

    watch, folder = Watch(), Path(task["folder"])
    sys.path.insert(0, str(folder))
    from reward import score  # type: ignore[import-not-found]

    count = task["prompts"] * task["group"]
    arguments = GRPOConfig(
        output_dir=task["run"],
        per_device_train_batch_size=count,
        num_generations=task["group"],
        max_steps=task["steps"],
        max_completion_length=task["tokens"],
        learning_rate=LR,
        lr_scheduler_type="constant",
        warmup_steps=0,
        weight_decay=0.0,
        adam_beta1=0.9,
        adam_beta2=0.999,
        adam_epsilon=eps_of(task),
        max_grad_norm=1.0,
        loss_type="grpo",
        scale_rewards="group",
        beta=task["kl"],
        use_bias_correction_kl=False,
        temperature=1.0,
        gradient_checkpointing=False,
        shuffle_dataset=False,
        use_cpu=True,
        bf16=False,
        report_to=[],
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        seed=SEED,
    )
    tokens: list[int] = []

    class StepEnds(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            watch.step_ended()

    class Watched(GRPOTrainer):
        def _generate(self, prompts: Any) -> Any:
            found = watch.rollout(super()._generate)(prompts)
            tokens.append(sum(map(len, found[1])))
            return found

    drawn = Path(task["prompts_file"]).with_suffix(".drawn").read_text()
    path = folder / task["model"]
    trainer = Watched(
        AutoModelForCausalLM.from_pretrained(path),
        reward_funcs=score,
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in json.loads(drawn)]),
        processing_class=AutoTokenizer.from_pretrained(path, padding_side="left"),
        callbacks=[StepEnds()],
        rollout_func=replayed(task["completions"]) if "completions" in task else None,
    )
    trainer.train()
    history = [row for row in trainer.state.log_history if "grad_norm" in row]
    more: dict[str, Any] = {key: [row[key] for row in history] for key in ("loss", "grad_norm")}
    if task.get("store"):
        trainer.model.save_pretrained(task["run"])
        more["weights"] = str(Path(task["run"]) / "model.safetensors")
    watch.result(tokens=tokens, **more)


def replayed(path: str) -> Any:
    """A rollout function of TRL that gives stored completions, in order."""
    stored = iter(json.loads(Path(path).read_text()))

    def rollout(prompts: list[str], trainer: Any) -> dict[str, Any]:
        prompt_ids = trainer.processing_class(prompts)["input_ids"]
        completions = [next(stored) for _ in prompts]
        return {"prompt_ids": prompt_ids, "completion_ids": completions, "logprobs": None}

    return rollout


if __name__ == "__main__":
    main()
