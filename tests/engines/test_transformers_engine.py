"""Sampling: explicit, repeatable by sample, and blind to a model's generation_config."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from model_factory import save_random_model

from dgpo_cli.engines.transformers_engine import BLOCK_IDS, TransformersEngine, choose
from dgpo_cli.errors import RunError
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.loading import load_model
from dgpo_cli.types import Problem, Prompt, SampleRequest, Sampling

SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_tokens=12)


def prompt(model: LanguageModel, text: str) -> Prompt:
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    return Prompt(Problem(0, "0", (("user", text),), "gold"), text, tuple(ids))


def requests(model: LanguageModel, texts: list[str], samples: int) -> list[SampleRequest]:
    return [
        SampleRequest(prompt(model, text), sample, seed=1000 * place + sample)
        for place, text in enumerate(texts)
        for sample in range(samples)
    ]


@pytest.fixture(scope="module")
def model(random_model: Path) -> LanguageModel:
    return load_model(str(random_model))


def engine(model: LanguageModel, batch_size: int = 64, stop_ids: frozenset[int] | None = None) -> TransformersEngine:
    stops = frozenset({model.tokenizer.eos_token_id}) if stop_ids is None else stop_ids
    return TransformersEngine(model, stop_ids=stops, batch_size=batch_size)


def test_the_same_seeds_give_the_same_completions(model: LanguageModel) -> None:
    asked = requests(model, ["12 + 30 =", "The fox"], 4)
    first = engine(model).generate(asked, SAMPLING)
    assert [r.token_ids for r in first] == [r.token_ids for r in engine(model).generate(asked, SAMPLING)]
    assert len({r.token_ids for r in first}) > 4


def test_a_sample_does_not_depend_on_its_companions(model: LanguageModel) -> None:
    asked = requests(model, ["12 + 30 =", "The quick brown fox counts", "a"], 3)
    together = [r.token_ids for r in engine(model).generate(asked, SAMPLING)]
    alone = [r.token_ids for r in engine(model, batch_size=1).generate(asked, SAMPLING)]
    assert together == alone


def test_a_hostile_generation_config_changes_nothing(model: LanguageModel, tmp_path: Path) -> None:
    hostile = load_model(str(save_random_model(tmp_path / "hostile", hostile=True)))
    assert hostile.model.generation_config.repetition_penalty == 1.8
    asked = requests(model, ["12 + 30 ="], 8)
    expected = [r.token_ids for r in engine(model).generate(asked, SAMPLING)]
    assert [r.token_ids for r in engine(hostile).generate(asked, SAMPLING)] == expected


def test_greedy_is_what_transformers_generates(model: LanguageModel) -> None:
    asked = requests(model, ["12 + 30 ="], 1)
    ids = torch.tensor([asked[0].prompt.token_ids])
    expected = model.model.generate(ids, do_sample=False, max_new_tokens=12, attention_mask=torch.ones_like(ids))
    greedy = engine(model).generate(asked, Sampling(0.0, 1.0, 12))
    assert list(greedy[0].token_ids) == expected[0, ids.shape[1] :].tolist()


def test_counted_tokens_end_with_the_first_stop_token(model: LanguageModel) -> None:
    free = engine(model, stop_ids=frozenset()).generate(requests(model, ["The fox"], 6), SAMPLING)
    assert all(r.finish_reason == "length" and len(r.token_ids) == 12 for r in free)
    stop = free[0].token_ids[5]
    stopped = engine(model, stop_ids=frozenset({stop})).generate(requests(model, ["The fox"], 6), SAMPLING)
    for whole, cut in zip(free, stopped, strict=True):
        if stop in whole.token_ids:
            end = whole.token_ids.index(stop) + 1
            assert cut.token_ids == whole.token_ids[:end]
            assert cut.finish_reason == "stop"
        else:
            assert cut.token_ids == whole.token_ids


def test_text_leaves_the_stop_token_out(model: LanguageModel) -> None:
    free = engine(model, stop_ids=frozenset()).generate(requests(model, ["The fox"], 1), SAMPLING)[0]
    cut = engine(model, stop_ids=frozenset({free.token_ids[-1]})).generate(requests(model, ["The fox"], 1), SAMPLING)[0]
    assert cut.text == model.tokenizer.decode(list(cut.token_ids[:-1]))


def test_samples_follow_the_distribution_at_the_temperature(model: LanguageModel) -> None:
    asked = requests(model, ["12 + 30 ="], 3000)
    drawn = engine(model, batch_size=3000).generate(asked, Sampling(0.7, 1.0, 1))
    with torch.no_grad():
        logits = model.model(torch.tensor([asked[0].prompt.token_ids])).logits[0, -1]
    expected = torch.softmax(logits.double() / 0.7, dim=-1)
    counts = torch.bincount(torch.tensor([r.token_ids[0] for r in drawn]), minlength=expected.numel()).double()
    for token in expected.topk(5).indices.tolist():
        share, p = float(counts[token]) / 3000, float(expected[token])
        assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / 3000)


def test_nucleus_keeps_the_smallest_set_that_reaches_top_p() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().expand(1000, 4)
    draws = torch.linspace(0, 0.999, 1000, dtype=torch.float64)
    chosen, logprobs = choose(logits, draws, Sampling(1.0, 0.7, 1))
    shares = torch.bincount(chosen, minlength=4) / 1000
    assert shares.tolist() == pytest.approx([0.5 / 0.8, 0.3 / 0.8, 0.0, 0.0], abs=2e-3)
    assert logprobs[chosen == 0].tolist() == pytest.approx([math.log(0.5 / 0.8)] * int((chosen == 0).sum()))


def test_an_id_without_mass_is_never_chosen() -> None:
    logits = torch.tensor([[float("-inf"), 0.0, 0.0, float("-inf")]]).expand(3, 4)
    draws = torch.tensor([0.0, 0.5, 1.0 - 2.0**-53], dtype=torch.float64)
    chosen, logprobs = choose(logits, draws, SAMPLING)
    assert chosen.tolist() == [1, 2, 2]
    assert logprobs.tolist() == pytest.approx([-math.log(2)] * 3)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_weights_that_are_not_numbers_stop_the_run(temperature: float, tmp_path: Path) -> None:
    broken = load_model(str(save_random_model(tmp_path / "broken")))
    with torch.no_grad():
        broken.model.model.norm.weight[0] = float("nan")
    with pytest.raises(RunError, match="not numbers"):
        engine(broken).generate(requests(broken, ["12"], 2), Sampling(temperature, 1.0, 4))


def test_pad_as_eos_changes_no_completion(tmp_path: Path) -> None:
    texts = ["12 + 30 =", "The quick brown fox counts"]
    drawn = []
    for pad_is_eos in (False, True):
        model = load_model(str(save_random_model(tmp_path / str(pad_is_eos), pad_is_eos=pad_is_eos)))
        assert (model.pad_id == model.tokenizer.eos_token_id) is pad_is_eos
        drawn.append([r.token_ids for r in engine(model).generate(requests(model, texts, 3), SAMPLING)])
    assert drawn[0] == drawn[1]


def test_a_large_vocabulary_is_gone_through_in_blocks_to_the_ids_of_one_cumulative_sum() -> None:
    size = 3 * BLOCK_IDS + 5  # the last block is a short one
    torch.manual_seed(0)
    logits = torch.randn(64, size) * 6
    logits[:, :BLOCK_IDS] = float("-inf")  # a whole block without mass, and every other id of the next
    logits[:, BLOCK_IDS : 2 * BLOCK_IDS : 2] = float("-inf")
    logits[:8, : 3 * BLOCK_IDS] = float("-inf")
    draws = torch.linspace(0, 0.999, 64, dtype=torch.float64)
    chosen, logprobs = choose(logits, draws, SAMPLING)
    probabilities = torch.softmax(logits, dim=-1).double()
    cumulative = probabilities.cumsum(dim=-1)
    expected = torch.searchsorted(cumulative, (draws * cumulative[:, -1])[:, None], right=True)
    assert chosen.tolist() == expected[:, 0].tolist()
    assert torch.allclose(logprobs, probabilities.gather(1, expected)[:, 0].log(), atol=1e-6)


def test_completions_of_a_group_that_end_early_leave_the_others_as_they_are(model: LanguageModel) -> None:
    asked = requests(model, ["12 + 30 =", "The quick brown fox counts"], 16)
    free = engine(model, stop_ids=frozenset()).generate(asked, SAMPLING)
    stops = frozenset(range(0, 512, 6))
    ending = engine(model, stop_ids=stops).generate(asked, SAMPLING)
    lengths = {len(rollout.token_ids) for rollout in ending}
    assert len(lengths) > 5  # rows were let go several times
    for whole, cut in zip(free, ending, strict=True):
        length = next((place + 1 for place, token in enumerate(whole.token_ids) if token in stops), 12)
        assert cut.token_ids == whole.token_ids[:length]
        assert whole.logprobs is not None
        assert cut.logprobs == pytest.approx(whole.logprobs[:length], abs=1e-5)
