"""The rows that `data=` names, as problems. No torch: plans and trial gradings read them too."""

from __future__ import annotations

from dgpo_cli.config.groups import DataConfig
from dgpo_cli.data.digit_chain import Form
from dgpo_cli.data.problems import ProblemSet, load_problem_set
from dgpo_cli.types import NO_COLUMNS, ColumnsAsked


def data_rows(
    data: DataConfig,
    *,
    seed: int,
    whole: bool = False,
    reduce_golds: bool = True,
    columns: ColumnsAsked = NO_COLUMNS,
) -> ProblemSet:
    """The rows that are trained on, or with `whole` every row of the file, whatever training leaves out.

    Raises DataError as `load_problem_set` does.
    """
    return load_problem_set(
        str(data.path),
        prompt_key=data.prompt_key,
        answer_key=data.answer_key,
        config=data.config,
        split=data.split,
        revision=data.revision,
        limit=None if whole else data.limit,
        seed=seed,
        size=data.size,
        form=Form(data.chain_steps, data.filler),
        deduplicate=data.deduplicate and not whole,
        validation_fraction=0.0 if whole else data.validation_fraction,
        reduce_golds=reduce_golds,
        columns=columns,
    )
