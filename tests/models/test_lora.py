"""Adapters: what they leave alone, what is trained, and that peft and dgpo read the same folder in the same way."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from model_factory import save_random_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from dgpo_cli.config.groups import StrategyConfig
from dgpo_cli.config.model_groups import LoraConfig, ModelConfig
from dgpo_cli.engines.transformers_engine import TransformersEngine
from dgpo_cli.errors import ConfigError, DataError
from dgpo_cli.models.frozen import frozen_copy, renew, renewable_reference
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.loading import load_model
from dgpo_cli.models.lora import AdapterView, add_adapter, save_adapter
from dgpo_cli.models.model_paths import adapter_base, weights_hash_files
from dgpo_cli.models.placement import Placement
from dgpo_cli.models.policy import load_trainee
from dgpo_cli.models.saving import architecture_summary, save_merged, save_model
from dgpo_cli.models.scoring import score_rollouts
from dgpo_cli.processes import SOLO
from dgpo_cli.types import Problem, Prompt, SampleRequest, Sampling

HERE = Placement(StrategyConfig(), "cpu", SOLO)
IDS = torch.arange(2, 22).reshape(2, 10)


@pytest.fixture
def base(random_model: Path) -> LanguageModel:
    return load_model(str(random_model))


def adapted(path: Path, *, dtype: str = "float32", targets: list[str] | None = None, seed: int = 1) -> LanguageModel:
    model = load_model(str(path), dtype=dtype)
    model.adapter = add_adapter(
        model.model,
        rank=3,
        alpha=None,
        target_modules=targets,
        base=adapter_base(str(path)),
        revision=None,
        seed=seed,
    )
    return model


def disturb(view: AdapterView, seed: int = 7) -> None:
    """Weights as training could leave them: B is no longer 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in view.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


@pytest.fixture
def trained(random_model: Path) -> LanguageModel:
    model = adapted(random_model)
    assert model.adapter is not None
    disturb(model.adapter)
    return model


def states(model: LanguageModel) -> Tensor:
    with torch.no_grad():
        return model.hidden_states(IDS)


def test_a_fresh_adapter_changes_nothing_and_is_all_that_is_trained(base: LanguageModel, random_model: Path) -> None:
    model = adapted(random_model)
    assert torch.equal(states(model), states(base))
    names = [name for name, parameter in model.model.named_parameters() if parameter.requires_grad]
    assert names
    assert all("lora_A.default" in name or "lora_B.default" in name for name in names)
    layers = [module for module in base.model.model.modules() if isinstance(module, torch.nn.Linear)]
    assert len(names) == 2 * len(layers)  # A and B of every linear layer of the body
    assert not any(isinstance(module, torch.nn.Dropout) for module in model.model.modules())


def test_a_seed_fixes_the_adapter_whatever_was_drawn_before(random_model: Path) -> None:
    first = adapted(random_model)
    torch.rand(5)
    before = torch.get_rng_state()
    again, other = adapted(random_model), adapted(random_model, seed=2)
    assert torch.equal(before, torch.get_rng_state())
    views = [model.adapter.parameters() for model in (first, again, other) if model.adapter is not None]
    assert all(torch.equal(left, right) for left, right in zip(views[0], views[1], strict=True))
    assert not torch.equal(views[0][0], views[2][0])


def test_the_reference_is_the_frozen_base_bit_for_bit_and_copies_no_weight(
    base: LanguageModel, trained: LanguageModel
) -> None:
    reference = frozen_copy(trained)
    assert reference.model is trained.model
    assert reference.head().weight is trained.head().weight
    assert torch.equal(states(reference), states(base))
    assert not torch.equal(states(trained), states(base))
    logits = [model.logits(IDS) for model in (reference, base)]
    assert torch.equal(logits[0], logits[1])


def test_reference_log_probs_are_those_of_the_frozen_base(base: LanguageModel, trained: LanguageModel) -> None:
    prompt = Prompt(Problem(0, "0", (("user", "x"),), ""), "x", (5, 9, 11))
    requests = [SampleRequest(prompt, sample, sample) for sample in range(3)]
    made = TransformersEngine(trained, stop_ids=frozenset({0}), batch_size=3).generate(requests, Sampling(1.0, 1.0, 9))
    lengths = [len(rollout.token_ids) for rollout in made]
    shared = score_rollouts(trained, frozen_copy(trained), made, lengths, temperature=1.0, tokens=4096)
    alone = score_rollouts(trained, base, made, lengths, temperature=1.0, tokens=4096)
    assert shared.ref_logprobs is not None
    assert alone.ref_logprobs is not None
    assert shared.hellinger is not None
    assert torch.equal(shared.ref_logprobs, alone.ref_logprobs)
    assert bool((shared.hellinger[shared.mask] > 0).all())


def test_a_pass_of_the_reference_amid_the_policys_leaves_its_gradient_alone(trained: LanguageModel) -> None:
    assert trained.adapter is not None

    def gradients(between: Callable[[], object]) -> list[Tensor]:
        trained.model.zero_grad()
        hidden = trained.hidden_states(IDS)
        between()
        hidden.square().sum().backward()
        assert trained.adapter is not None
        return [parameter.grad.clone() for parameter in trained.adapter.parameters() if parameter.grad is not None]

    plain = gradients(lambda: None)
    amid = gradients(lambda: states(frozen_copy(trained)))
    assert len(plain) == len(trained.adapter.parameters())
    assert all(torch.equal(left, right) for left, right in zip(plain, amid, strict=True))
    assert all(parameter.grad is None for parameter in trained.model.parameters() if not parameter.requires_grad)


def test_bfloat16_weights_carry_a_float32_adapter(random_model: Path, tmp_path: Path) -> None:
    model, frozen = adapted(random_model, dtype="bfloat16"), load_model(str(random_model), dtype="bfloat16")
    assert model.adapter is not None
    assert {parameter.dtype for parameter in model.adapter.parameters()} == {torch.float32}
    assert model.model.dtype == torch.bfloat16
    assert torch.equal(states(model), states(frozen))
    disturb(model.adapter)
    save_model(model, tmp_path / "adapter")
    again = load_model(str(tmp_path / "adapter"), dtype="bfloat16")
    assert again.adapter is not None
    assert all(
        torch.equal(left, right)
        for left, right in zip(model.adapter.parameters(), again.adapter.parameters(), strict=True)
    )
    assert torch.equal(states(model), states(again))


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft's own call
def test_a_folder_loads_with_peft_and_with_dgpo(trained: LanguageModel, tmp_path: Path) -> None:
    import peft

    folder = tmp_path / "adapter"
    save_model(trained, folder)
    assert {path.name for path in folder.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    assert not (folder / "model.safetensors").exists()
    with torch.no_grad():
        expected = trained.logits(IDS)
        theirs = peft.AutoPeftModelForCausalLM.from_pretrained(folder).eval()(input_ids=IDS).logits
        wrapped = transformers.AutoModelForCausalLM.from_pretrained(trained.path)
        wrapped = peft.PeftModel.from_pretrained(wrapped, folder).eval()(input_ids=IDS).logits
        ours = load_model(str(folder))
        assert torch.equal(ours.logits(IDS), expected)
        assert torch.equal(theirs, expected)
        assert torch.equal(wrapped, expected)
    assert ours.has_head
    assert not any(parameter.requires_grad for parameter in ours.model.parameters())
    transformers.AutoTokenizer.from_pretrained(folder)
    assert trained.adapter is not None
    save_adapter(trained.adapter, tmp_path / "gathered", state_dict=trained.model.state_dict())
    names = ("adapter_config.json", "adapter_model.safetensors")
    assert all((folder / name).read_bytes() == (tmp_path / "gathered" / name).read_bytes() for name in names)
    hashed = weights_hash_files(str(folder))
    assert [path.name for path in hashed] == ["adapter_model.safetensors", "model.safetensors"]


def test_a_merged_model_is_plain_and_says_the_same(trained: LanguageModel, tmp_path: Path) -> None:
    save_model(trained, tmp_path / "adapter")
    before = {name: value.clone() for name, value in trained.model.state_dict().items()}
    save_merged(trained, tmp_path / "adapter", tmp_path / "full")
    assert all(torch.equal(before[name], value) for name, value in trained.model.state_dict().items())
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "full")
    assert not any("lora" in name for name, _ in plain.named_parameters())
    assert not (tmp_path / "full" / "adapter_config.json").exists()
    with torch.no_grad():
        assert torch.allclose(plain(input_ids=IDS).logits, trained.logits(IDS), atol=1e-4)
    loaded = load_model(str(tmp_path / "adapter"), merge_adapter=True)
    assert loaded.adapter is None
    assert all(
        torch.equal(left, right) for left, right in zip(loaded.model.parameters(), plain.parameters(), strict=True)
    )


def test_a_renewed_reference_is_the_adapters_earlier_weights(
    random_model: Path, base: LanguageModel, tmp_path: Path
) -> None:
    policy = adapted(random_model)
    reference = renewable_reference(policy, None)
    assert policy.adapter is not None
    assert reference.adapter is not None
    assert reference.model is policy.model
    assert torch.equal(states(reference), states(base))
    trainable = {name for name, parameter in policy.model.named_parameters() if parameter.requires_grad}
    assert trainable == {name for name, _ in policy.model.named_parameters() if ".default." in name}
    disturb(policy.adapter)
    moved = states(policy)
    assert torch.equal(states(reference), states(base))
    renew(reference, policy)
    assert torch.equal(states(reference), moved)
    disturb(policy.adapter, seed=8)
    assert torch.equal(states(reference), moved)
    assert not torch.equal(states(policy), moved)
    assert architecture_summary(policy)["parameters"] == architecture_summary(base)["parameters"]
    # a resumed run takes both from their folders
    save_model(policy, tmp_path / "policy")
    save_model(reference, tmp_path / "reference")
    resumed = load_model(str(tmp_path / "policy"))
    again = renewable_reference(resumed, tmp_path / "reference")
    assert torch.equal(states(again), moved)
    assert torch.equal(states(resumed), states(policy))


def is_on(model: LanguageModel) -> set[tuple[str, bool]]:
    """What the layers say, asked as peft asks them: which adapter, and whether it is off."""
    layers = [module for module in model.model.modules() if hasattr(module, "lora_A")]
    return {(name, layer.disable_adapters) for layer in layers for name in layer.active_adapters}


def test_outside_of_any_view_the_policys_adapter_is_on(random_model: Path, tmp_path: Path) -> None:
    """There checkpointed layers compute again."""
    policy = adapted(random_model)
    assert policy.adapter is not None
    reference = renewable_reference(policy, None)
    assert is_on(policy) == {("default", False)}
    disturb(policy.adapter)
    save_model(policy, tmp_path / "policy")
    save_model(reference, tmp_path / "reference")
    resumed = load_model(str(tmp_path / "policy"))
    renewable_reference(resumed, tmp_path / "reference")
    assert is_on(resumed) == {("default", False)}
    assert reference.adapter is not None
    with reference.adapter.on():
        assert is_on(policy) == {("reference", False)}
        with frozen_copy(policy).adapter.on():  # type: ignore[union-attr]
            assert {off for _, off in is_on(policy)} == {True}
        assert is_on(policy) == {("reference", False)}
    with pytest.raises(IndexError):
        reference.hidden_states(torch.tensor([[10**6]]))
    assert is_on(policy) == {("default", False)}


@pytest.mark.parametrize(("target", "expected"), [("lm_head", "policy and reference share"), ("qproj", "[down_proj,")])
def test_layers_that_cannot_be_adapted_are_named(random_model: Path, target: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        adapted(random_model, targets=["q_proj", target])
    assert expected in f"{caught.value.problems[0].message} {caught.value.problems[0].hint}"
    assert not any(
        "lora" in name
        for name, _ in adapted(random_model, targets=["q_proj"]).model.named_parameters()
        if "k_proj" in name
    )


def test_adapters_that_cannot_be_loaded_are_refused_in_one_line(
    trained: LanguageModel, random_model: Path, tmp_path: Path
) -> None:
    def refused(folder: Path) -> str:
        said = []
        for merge in (False, True):
            with pytest.raises(DataError) as caught:
                load_model(str(folder), merge_adapter=merge)
            assert caught.value.problems[0].hint
            said.append(str(caught.value))
        assert said[0].partition(":")[0] == said[1].partition(":")[0]
        return said[0]

    moved = Path(shutil.copytree(random_model, tmp_path / "base"))
    model = adapted(moved)
    save_model(model, tmp_path / "adapter")
    shutil.rmtree(moved)
    assert f"is an adapter of '{moved}', which cannot be loaded here" in refused(tmp_path / "adapter")
    save_random_model(moved, hidden_size=16)
    assert "cannot be put on Qwen2ForCausalLM" in refused(tmp_path / "adapter")
    save_random_model(moved, layers=1)
    assert "does not fit Qwen2ForCausalLM" in refused(tmp_path / "adapter")
    file = moved / "model.safetensors"
    save_file(load_file(file) | {"v_head.weight": torch.ones(1)}, file, metadata={"format": "pt"})
    assert "v_head.weight" in refused(tmp_path / "adapter")  # what is wrong with the base is said
    save_random_model(moved)
    load_model(str(tmp_path / "adapter"))
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"torn")
    assert "cannot be put on" in refused(tmp_path / "adapter")


def test_the_bundled_base_is_found_from_another_installation(tmp_path: Path) -> None:
    model = adapted(Path("bundled:tiny"))
    save_model(model, tmp_path / "adapter")
    config = tmp_path / "adapter" / "adapter_config.json"
    here = adapter_base("bundled:tiny")
    assert here in config.read_text()
    config.write_text(config.read_text().replace(here, "/elsewhere/site-packages/dgpo_cli/bundled/tiny"))
    assert torch.equal(states(load_model(str(tmp_path / "adapter"))), states(model))


def test_an_adapter_on_the_hub_is_fetched_and_its_base_loaded(
    trained: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache as the hub's own client leaves it, read by that client without a network."""
    commit, repository = "0123456789" * 4, tmp_path / "hub" / "models--someone--adapter"
    save_model(trained, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    loaded = load_model("someone/adapter")
    assert loaded.adapter is not None
    assert torch.equal(states(loaded), states(trained))
    with pytest.raises(ConfigError, match="would train one on top of it"):
        load_trainee(ModelConfig(path="someone/adapter", lora=LoraConfig(rank=2)), HERE, None, seed=0)


def test_layers_of_any_kind_take_an_adapter(tmp_path: Path) -> None:
    """GPT-2 holds its weights transposed."""
    from model_factory import byte_level_tokenizer

    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=512, n_embd=32, n_layer=2, n_head=2, n_positions=128)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "gpt2")
    byte_level_tokenizer().save_pretrained(tmp_path / "gpt2")
    model = adapted(tmp_path / "gpt2")
    assert model.adapter is not None
    assert len(model.adapter.parameters()) == 2 * 2 * 4
    disturb(model.adapter)
    assert torch.equal(states(frozen_copy(model)), states(load_model(str(tmp_path / "gpt2"))))
    save_model(model, tmp_path / "adapter")
    assert torch.equal(states(load_model(str(tmp_path / "adapter"))), states(model))
