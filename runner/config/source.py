"""Have Hydra read our folders: all of them, in order, for the primary config too, and as `runner.config.yaml` reads.

Hydra's own API takes one folder, and looks for the primary config only there. Its search path takes any number.
"""

from __future__ import annotations

import copy
import functools
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.config import yaml
from runner.config.folders import state_of
from runner.config.interpolation import ESCAPE_HINT
from runner.errors import ConfigError
from runner.system.paths import shortened

if TYPE_CHECKING:
    from collections.abc import Sequence

searched: ContextVar[Sequence[Path]] = ContextVar("ostinato_config_places", default=())
"""The folders that Hydra searches in this context, first match wins."""


@functools.cache
def register_source() -> None:
    """Make Hydra search the folders in `searched`. Repeated calls do nothing."""
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    class OstinatoSearchPath(SearchPathPlugin):  # type: ignore[misc]
        def manipulate_search_path(self, search_path: Any) -> None:
            for place in reversed(searched.get()):
                search_path.prepend("ostinato", f"ostinato://{place}")

    Plugins.instance().register(_config_source())
    Plugins.instance().register(OstinatoSearchPath)


def _config_source() -> Any:
    """Return a Hydra plugin that reads ``ostinato://FOLDER``."""
    from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
    from omegaconf import OmegaConf
    from omegaconf.errors import GrammarParseError

    @functools.lru_cache(maxsize=256)
    def read(file: Path, _state: object) -> tuple[Any, str]:
        """Return the config in a file, and its text. A copy of the config costs a third of reading it again."""
        try:
            return OmegaConf.create(yaml.read(file)), file.read_text("utf-8-sig")
        except GrammarParseError as error:
            problem = str(error).partition("\n")[0]
            raise ConfigError(f"{shortened(file)}: {error.full_key}: {problem}; {ESCAPE_HINT}") from None

    class OstinatoConfigSource(ConfigSource):  # type: ignore[misc]
        @staticmethod
        def scheme() -> str:
            return "ostinato"

        def load_config(self, config_path: str) -> ConfigResult:
            file = self._file(config_path)
            if not file.is_file():
                raise ConfigLoadError(f"Config not found : {file}")
            config, text = read(file, state_of(file))
            header = self._get_header_dict(text)
            path = f"{self.scheme()}://{self.path}"
            return ConfigResult(config=copy.deepcopy(config), path=path, provider=self.provider, header=header)

        def available(self) -> bool:
            return self.is_group("")

        def is_group(self, config_path: str) -> bool:
            return (Path(self.path) / config_path).is_dir()

        def is_config(self, config_path: str) -> bool:
            return self._file(config_path).is_file()

        def list(self, config_path: str, results_filter: Any) -> list[str]:
            found: list[str] = []
            for entry in (Path(self.path) / config_path).iterdir():
                self._list_add_result(found, f"{config_path}/{entry.name}", entry.name, results_filter)
            return sorted(set(found))

        def _file(self, config_path: str) -> Path:
            name: str = self._normalize_file_name(config_path)
            return Path(self.path) / name

    return OstinatoConfigSource
