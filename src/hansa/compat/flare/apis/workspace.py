"""Workspace: the folders of one place, the server or a site."""

from __future__ import annotations

from pathlib import Path


class Workspace:
    """The folders below `root_dir`: `run_<n>/app_<name>/{config,custom}` of the app, and whatever components write beside it."""

    def __init__(self, root_dir: str, name: str = "", config_folder: str = "config") -> None:
        self.root_dir, self.name, self.config_folder = root_dir, name, config_folder

    def get_root_dir(self) -> str:
        return self.root_dir

    def get_startup_kit_dir(self) -> str:
        return str(Path(self.root_dir, "startup"))

    def get_run_dir(self, run_num: int) -> str:
        return str(Path(self.root_dir, f"run_{run_num}"))

    def get_app_dir(self, run_num: int) -> str:
        return str(Path(self.get_run_dir(run_num), f"app_{self.name}"))

    def get_app_config_dir(self, run_num: int) -> str:
        return str(Path(self.get_app_dir(run_num), self.config_folder))

    def get_app_custom_dir(self, run_num: int) -> str:
        return str(Path(self.get_app_dir(run_num), "custom"))
