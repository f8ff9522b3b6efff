"""A real Prometheus that scrapes one address of this host every second, below one directory."""

import json
import socket
import subprocess
import urllib.parse
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from tests.bed.command import clean_environment, end_process
from tests.bed.waiting import wait_until

START_DEADLINE_S: Final = 30.0
ATTEMPTS: Final = 5  # a port found free may be taken before it has it
_RULES: Final = "rule_files: ['{rules}']\n"
_CONFIGURATION: Final = """\
global:
  scrape_interval: 1s
  evaluation_interval: 1s
scrape_configs:
  - job_name: proxyd
    static_configs:
      - targets: ['{target}']
"""


def fetch(url: str) -> str:
    """The page, by no proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as answer:
        return str(answer.read().decode())


class Prometheus:
    """Started and stopped by a with block. `rules` is a file of alert rules, if any."""

    def __init__(self, directory: Path, target: str, rules: Path | None = None) -> None:
        self.directory = directory
        self._configuration = directory / "prometheus.yml"
        text = _CONFIGURATION.format(target=target)
        self._configuration.write_text(text + (_RULES.format(rules=rules) if rules else ""))
        self._log = directory / "prometheus.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    def __enter__(self) -> Self:
        for _ in range(ATTEMPTS):
            if self._started():
                return self
        raise ChildProcessError(f"Prometheus does not start\n{self._log.read_text()[-3000:]}")

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        end_process(self._process)

    def query(self, expression: str) -> dict[tuple[tuple[str, str], ...], float]:
        """The present values, by their labels without those of the target."""
        found = self._api("query", query=expression)["result"]
        return {
            tuple(
                sorted((k, v) for k, v in each["metric"].items() if k not in {"job", "instance"})
            ): (float(each["value"][1]))
            for each in found
        }

    def value(self, expression: str) -> float:
        """The one present value; 0 where there is none."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return next(iter(found.values()), 0.0)

    def scrapes(self) -> float:
        """How many there have been."""
        return self.value('count_over_time(up{job="proxyd"}[1h])')

    def wait_for_scrapes(self, count: int = 2) -> None:
        """So many more, of which the last ones began after this."""
        before = self.scrapes()
        wait_until(lambda: self.scrapes() >= before + count, 30, "further scrapes")

    def rules(self) -> list[dict[str, Any]]:
        """The alerts' state, as it tells it."""
        return [rule for group in self._api("rules")["groups"] for rule in group["rules"]]

    def _api(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        answer = json.loads(fetch(f"http://127.0.0.1:{self._port}/api/v1/{path}?{query}"))
        assert answer["status"] == "success", answer
        return answer["data"]

    def _started(self) -> bool:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={self._configuration}",
                    f"--storage.tsdb.path={self.directory}/data",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=clean_environment(),
            )
        process = self._process

        def ready() -> str | None:
            if process.poll() is not None:
                return "ended"
            with suppress(OSError):
                return fetch(f"http://127.0.0.1:{self._port}/-/ready")
            return None

        return wait_until(ready, START_DEADLINE_S, "Prometheus is ready") != "ended"
