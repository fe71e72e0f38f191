"""The script that submitit hands to Slurm's sbatch, made by submitit itself, on machines without Slurm too."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

LAUNCHER = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"
OF_THE_PLUG_IN = ("_target_", "submitit_folder", "max_num_timeout")  # no parameters of sbatch


def slurm_script(launcher: DictConfig, folder: Path, jobs: int) -> str:
    """What sbatch would be given for an array of `jobs` jobs of a sweep in `folder`. launcher: hydra.launcher."""
    from submitit.slurm.slurm import SlurmExecutor

    class Described(SlurmExecutor):
        """Describes jobs and submits none, so it needs no srun."""

        @classmethod
        def affinity(cls) -> int:
            return 1

    executor = Described(folder / ".submitit" / "%j")
    # One by one: `submitit_folder` has no value before a job runs, and others have theirs from elsewhere in Hydra.
    asked = {str(name): launcher[name] for name in launcher if name not in OF_THE_PLUG_IN}
    parameters = {
        name: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        for name, value in asked.items()
        if value is not None
    }
    executor.update_parameters(**executor._convert_parameters(parameters))
    if jobs > 1:
        executor.parameters["map_count"] = jobs
    return executor._make_submission_file_text(executor._submitit_command_str, "").strip()
