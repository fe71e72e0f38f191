"""Why a key changes nothing beside the other choices.

Each reason takes the job's configuration and the keys that were typed. It gives the words of the message, or None if
the key counts. `idle_rules` says which keys each is asked about.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from dgpo_cli.config import keys as catalogue
from dgpo_cli.config.gating_needs import needs_reference, shapes_credit
from dgpo_cli.config.groups import Form, Normalizer, Schedule
from dgpo_cli.config.rollout_files import is_of_others, names_model
from dgpo_cli.config.strategies import SHARDED
from dgpo_cli.config.wandb_checks import goes_to_tensorboard, goes_to_wandb

TIMED = ("robust", "function")  # graders that run in processes with a time limit

Typed = Collection[str]
Reason = Callable[[Any, Typed], str | None]


def no_benchmark(config: Any, _: Typed) -> str | None:
    return "there is no benchmark" if config.benchmark.name is None else None


def one_engine_for_all(config: Any, _: Typed) -> str | None:
    """Idle if the engine draws on the trainer's devices, or in its process: they take turns in any case."""
    return None if config.engine.name == "vllm" else f"engine={config.engine.name} draws where the trainer computes"


def needs_no_reference(config: Any, typed: Typed) -> str | None:
    gating = config.gating
    if needs_reference(config.algo, gating):
        return None
    return f"gating={gating.name} and algo.kl_coef={catalogue.show(config.algo.kl_coef)} measure nothing from one"


def reference_of_no_path(config: Any, _: Typed) -> str | None:
    return None if config.reference.name == "path" else f"reference={config.reference.name} has no path"


def uniform(config: Any, _: Typed) -> str | None:
    return None if shapes_credit(config.gating) else "uniform credit has no weights to shape"


def hard_mask(config: Any, _: Typed) -> str | None:
    """Idle if tokens are chosen or left out: the chosen ones weigh alike."""
    for name in ("top_fraction", "band"):
        value = getattr(config.gating, name)
        if value is not None:
            return f"gating.{name}={catalogue.show(value)} gives the chosen tokens equal weights"
    return None


def linear(config: Any, _: Typed) -> str | None:
    gating = config.gating
    is_without = gating.form is Form.linear and gating.normalizer is not Normalizer.window
    return "gating.form=linear has no temperature" if is_without else None


def softmax(config: Any, _: Typed) -> str | None:
    is_softmax = config.gating.form is Form.softmax
    return "gating.form=softmax has a temperature in its place" if is_softmax else None


def detached_ratio(config: Any, _: Typed) -> str | None:
    return "algo.detached_ratio=true is bounded by algo.clip_high" if config.algo.detached_ratio else None


def no_window(config: Any, _: Typed) -> str | None:
    normalizer = config.gating.normalizer
    return None if normalizer is Normalizer.window else f"gating.normalizer={normalizer.value} looks at no window"


def one_update(config: Any, _: Typed) -> str | None:
    is_one = config.optim.minibatches == config.optim.epochs == 1
    return "a step has one update, before which both are the same policy" if is_one else None


def no_dynamic_sampling(config: Any, _: Typed) -> str | None:
    return None if config.algo.dynamic_sampling.enabled else "dynamic sampling is off"


def no_overlong(config: Any, _: Typed) -> str | None:
    return None if config.algo.overlong.enabled else "the overlong punishment is off"


def own_scores(config: Any, _: Typed) -> str | None:
    if config.reward.name != "function" or config.algo.overlong.enabled:
        return None  # the size of the overlong penalty follows from both
    return "the scores of a function of your own stay as they are"


def no_function(config: Any, _: Typed) -> str | None:
    benchmark = getattr(config, "benchmark", None)
    evaluates = benchmark is not None and benchmark.name is not None and benchmark.reward == "function"
    return None if evaluates or config.reward.name == "function" else f"reward={config.reward.name} calls no function"


def untimed(config: Any, _: Typed) -> str | None:
    graders = {config.reward.name}
    if hasattr(config, "benchmark") and config.benchmark.name is not None:
        graders.add(config.benchmark.reward)
    return None if graders & set(TIMED) else f"reward={config.reward.name} answers at once"


def no_validation(config: Any, _: Typed) -> str | None:
    if str(config.data.path).startswith("bundled:"):
        return f"{config.data.path} has held-out problems of its own"
    chosen = config.benchmark.name is not None and not config.benchmark.validation_fraction
    return f"benchmark={config.benchmark.name} is evaluated in its place" if chosen else None


def not_split(config: Any, _: Typed) -> str | None:
    return "data.validation_fraction sets it" if not config.benchmark.completions else "stored completions are graded"


def one_reward(config: Any, _: Typed) -> str | None:
    is_list = isinstance(config.reward.path, list)
    return no_function(config, {}) or (None if is_list else "there is one reward")


def not_of_hub(group: str) -> Reason:
    def idle(config: Any, _: Typed) -> str | None:
        source = getattr(config, group)
        path = source.path or getattr(source, "hub", None)
        return f"{group}.path={path} is not on the hub" if path and _is_local(path) else None

    return idle


def _is_local(path: str) -> bool:
    return path.startswith(("bundled:", "/", "./", "../")) or Path(path).expanduser().exists()


def not_generated(config: Any, _: Typed) -> str | None:
    path = config.data.path
    return None if str(path).startswith("bundled:") else f"data.path={path} holds rows, none are generated"


def no_chains(config: Any, _: Typed) -> str | None:
    path = config.benchmark.path or config.benchmark.hub
    return None if str(path).startswith("bundled:") else f"benchmark={config.benchmark.name} holds rows"


def wins(by: str) -> Reason:
    """Idle if another key is set: that one counts in its place."""

    def idle(config: Any, _: Typed) -> str | None:
        value: Any = config
        for part in by.split("."):
            value = getattr(value, part)
        return None if value is None else f"{by}={catalogue.show(value)} wins over it"

    return idle


def typed_too(*keys: str) -> Reason:
    """Idle if one of these was typed: it counts in its place."""

    def idle(_: Any, typed: Typed) -> str | None:
        winner = next((key for key in keys if key in typed), None)
        return None if winner is None else f"{winner}= wins over it"

    return idle


def always(why: str) -> Reason:
    return lambda _, __: why


def template_in_training(config: Any, typed: Typed) -> str | None:
    of_benchmark = config.benchmark.name is None or config.benchmark.template is not None
    return wins("data.template")(config, typed) if of_benchmark else None


def no_chat(config: Any, _: Typed) -> str | None:
    return None if config.model.chat_template else "there is no system turn without model.chat_template=true"


def no_plan(config: Any, _: Typed) -> str | None:
    if config.dry_run or getattr(config, "probe", False):
        return None
    return "sizes that are stated serve the plan alone"


def single(config: Any, _: Typed) -> str | None:
    return "strategy=single has one process" if config.strategy.name == "single" else None


def unsharded(config: Any, _: Typed) -> str | None:
    name = config.strategy.name
    return None if name in SHARDED else f"strategy={name} holds the whole model in each process"


def one_process(config: Any, _: Typed) -> str | None:
    return None if config.dry_run else "this command computes in one process, forward alone"


def no_wandb(config: Any, _: Typed) -> str | None:
    return None if goes_to_wandb(config.logger) else "nothing goes to W&B"


def no_logger(config: Any, _: Typed) -> str | None:
    logged = goes_to_wandb(config.logger) or goes_to_tensorboard(config.logger)
    return None if logged else "nothing goes to W&B or TensorBoard"


def constant(config: Any, _: Typed) -> str | None:
    return "a constant schedule has no end" if config.optim.schedule is Schedule.constant else None


def no_kl(config: Any, _: Typed) -> str | None:
    return None if config.algo.kl_coef > 0 else "there is no KL penalty"


def same_policy(config: Any, _: Typed) -> str | None:
    """Engines that compute as the trainer does (`types.EngineFacts`): this one, and no others."""
    if config.engine.name != "transformers" or config.rollout.lag:
        return None
    return "engine=transformers draws with the weights that train, so every factor is 1"


def uncorrected(config: Any, _: Typed) -> str | None:
    return "engine.correction=none corrects nothing" if config.engine.correction.name == "none" else None


def no_resume(config: Any, _: Typed) -> str | None:
    return None if config.resume else "no run is continued"


def planned(config: Any, _: Typed) -> str | None:
    return "dry_run=true stops before it" if config.dry_run else None


def untrained(config: Any, _: Typed) -> str | None:
    name = next((name for name in ("dry_run", "probe") if getattr(config, name)), None)
    return None if name is None else f"{name}=true trains nothing"


def greedy(section: str) -> Reason:
    def idle(config: Any, _: Typed) -> str | None:
        return f"{section}.temperature=0 is greedy" if getattr(config, section).temperature == 0 else None

    return idle


def local_engine(config: Any, _: Typed) -> str | None:
    name = config.engine.name
    return None if name in ("openai", "vllm") else f"engine={name} asks no server"


def engine_is_not(name: str) -> Reason:
    def idle(config: Any, _: Typed) -> str | None:
        asks = "asks no server" if config.engine.name == "transformers" else "does not look at it"
        return None if config.engine.name == name else f"engine={config.engine.name} {asks}"

    return idle


def no_units(config: Any, _: Typed) -> str | None:
    return "engine=vllm draws each completion by itself" if config.engine.name == "vllm" else None


def running_servers(config: Any, _: Typed) -> str | None:
    return "the servers of engine.urls run already" if config.engine.urls else None


def no_files(config: Any, _: Typed) -> str | None:
    sync = config.engine.sync.name
    return None if sync == "files" else f"engine.sync={sync} writes no files"


def served(config: Any, _: Typed) -> str | None:
    return "the server holds the model" if config.engine.name == "openai" else None


def drawn_elsewhere(config: Any, _: Typed) -> str | None:
    return "the servers of vLLM hold the model" if config.engine.name == "vllm" else None


def drawn_on_running_servers(config: Any, _: Typed) -> str | None:
    running = config.engine.name == "vllm" and config.engine.urls
    return "the servers of engine.urls hold the model, and run already" if running else None


def served_by_name(config: Any, typed: Typed) -> str | None:
    """A model's path still says which benchmark is the default, and a run's folder brings its own."""
    path = config.model.path
    brings = "benchmark" not in typed or (path is not None and _of_a_run(Path(path)))
    return None if brings else served(config, typed)


def _of_a_run(model: Path) -> bool:
    return model.name == "model" and len(model.parents) > 2 and (model.parents[2] / "config.yaml").is_file()


def no_localisation(config: Any, _: Typed) -> str | None:
    return None if config.study.name == "localisation" else "study=localisation is not asked for"


def no_swap(config: Any, _: Typed) -> str | None:
    return "there is no other model to swap with" if config.swap.path is None else None


def a_study(config: Any, _: Typed) -> str | None:
    studies = config.study.name != "none" or config.swap.path is not None
    return "a study reports no pass@k or maj@k" if studies else None


def stored_completions(config: Any, _: Typed) -> str | None:
    return "stored completions are graded, none are drawn" if config.benchmark.completions else None


def stored_rollouts(config: Any, _: Typed) -> str | None:
    return None if config.rollouts is None else "stored rollouts are read, none are sampled"


def unscored_rollouts(config: Any, typed: Typed) -> str | None:
    """What another trainer wrote is scored if a model is named."""
    if is_of_others(config.rollouts):
        return None if names_model(typed) else "no model is named to score the file's rollouts"
    return stored_rollouts(config, typed)


def scored_rollouts(config: Any, typed: Typed) -> str | None:
    is_scored = is_of_others(config.rollouts) and names_model(typed)
    return "the model says it" if is_scored else None


def grades_alone(config: Any, _: Typed) -> str | None:
    return None if config.grade is None else "stored completions are graded, and no model is loaded"


def draws_no_further(config: Any, _: Typed) -> str | None:
    if config.rollouts is not None or config.prompt is not None or config.grade is not None:
        return "no prompts of data are sampled"
    return None if config.report else "there is no page to draw further prompts for"


def stores_no_step(config: Any, _: Typed) -> str | None:
    return "no step's rollouts are stored" if config.rollout.save.name == "none" else None


def own_prompt(config: Any, _: Typed) -> str | None:
    return None if config.prompt is None else "the prompt is the one that was typed, and nothing grades it"
