"""The tables: what has no flag stands in one table a topic, each a frozen value with its defaults.

What is wrong among the keys of a table, each of which is fine, its ``conflicts`` say.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from daemon.common import keys
from daemon.common.errors import UserError
from daemon.common.mounts import MountSetting
from daemon.common.sockets import is_loopback
from daemon.config.rule import MONTH_S, Choice, Folder, Number, Rule, Switch
from deploy.engines import NAMES, PRECISIONS


class Host(Rule):
    """An address of this computer to listen at, or a name of it."""

    def __call__(self, raw: Any, folder: Path) -> str:
        host = raw.strip("[]") if isinstance(raw, str) else raw
        if isinstance(host, str) and (host == "localhost" or _is_address(host)):
            return host
        raise ValueError(f'"{raw}" is no address of this computer: "127.0.0.1", or "0.0.0.0" for all that it has')


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """``[source]``: how watched folders are looked at."""

    mounts: MountSetting = "auto"
    text_quiet_s: Annotated[float, Number(0.1, 600)] = 2.0  # a text file has no end mark: it must be still so long
    unended_s: Annotated[float, Number(0, 86400)] = 20.0  # the same without a line end after its last row
    rescan_local_s: Annotated[float, Number(0.5, 3600)] = 30.0
    rescan_network_s: Annotated[float, Number(0.5, 3600)] = 2.0
    give_up_s: Annotated[float, Number(1, 86400)] = 60.0  # an unfinished single curve, without growth
    give_up_map_s: Annotated[float, Number(1, 86400)] = 600.0
    zero_tail_s: Annotated[float, Number(0, 3600)] = 10.0  # right size, but the end still zeros


@dataclass(frozen=True, slots=True)
class ThresholdsConfig:
    """``[thresholds]``: None leaves the model's own, which its calibration has evidence for."""

    discard: Annotated[float | None, Number(0, 1)] = None
    keep: Annotated[float | None, Number(0, 1)] = None


@dataclass(frozen=True, slots=True)
class AlarmConfig:
    """``[alarm]``: when somebody should look at the instrument."""

    no_contact_run: Annotated[int, Number(1, 100_000, whole=True)] = 20  # curves in a row that miss the surface
    unread_files: Annotated[int, Number(0, 100_000, whole=True)] = 20  # came into a folder, none a kind that is read
    unread_s: Annotated[float, Number(1, 86400)] = 300.0  # or so long after the first of them; unread_files 0: never
    silence_s: Annotated[float, Number(0, MONTH_S)] = 0.0  # no curve came for so long; 0: an instrument may rest


@dataclass(frozen=True, slots=True)
class BatchConfig:
    """``[batch]``: a lone curve is never held back longer than ``wait_s``."""

    wait_s: Annotated[float, Number(0, 0.1)] = 0.005
    largest: Annotated[int, Number(1, 1024, whole=True)] = 32


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """``[engine]``: what runs the network; auto is the best that passes its self-test on ``device``."""

    name: Annotated[str, Choice(NAMES)] = "auto"
    precision: Annotated[str, Choice(PRECISIONS)] = "auto"
    threads: Annotated[int, Number(0, 1024, whole=True)] = 0  # 0: the cores less one, which is the instrument's
    deadline_s: Annotated[float, Number(0.05, 4)] = 2.0  # a GPU that takes longer is wedged; the CPU answers in 5 s


@dataclass(frozen=True, slots=True)
class GuardConfig:
    """``[guard]``: simulated curves go down the line too, which tells whether it works; they are never counted."""

    canaries: Annotated[bool, Switch()] = True
    canary_s: Annotated[float, Number(0.2, 3600)] = 5.0  # one so often while curves come,
    canary_rest_s: Annotated[float, Number(0.2, 86400)] = 30.0  # and at rest


@dataclass(frozen=True, slots=True)
class ReviewConfig:
    """``[review]``: the order of the pile, the features that a head on the labels stands on, and who sees the page."""

    order: Literal["head", "score"] = "head"  # score: as the network has it, whatever is labelled
    features: Literal["none", "pca", "autoencoder", "soft-kmeans"] = "none"
    bind: Annotated[str, Host()] = "127.0.0.1"  # beyond this computer the page asks for a token
    token_file: Annotated[Path | None, Folder()] = None  # its first line; asked for at any address, behind a proxy


@dataclass(frozen=True, slots=True)
class FinetuneConfig:
    """``[finetune]``: when people have said enough to teach the network itself."""

    events: Annotated[int, Number(20, 1_000_000, whole=True)] = 100  # confirmed; with fewer the cut alone is moved


@dataclass(frozen=True, slots=True)
class LogConfig:
    """``[log]``: lines on standard error; under systemd the journal adds the time."""

    level: Annotated[str, Choice(("debug", "info", "warning", "error"))] = "info"
    format: Literal["text", "json"] = "text"


@dataclass(frozen=True, slots=True)
class KeysConfig:
    """``[keys]``: for what other machines can reach; None: below ``keys`` in the state folder, where they are made."""

    secret: Annotated[Path | None, Folder()] = None  # the service's own
    allow: Annotated[Path | None, Folder()] = None  # a folder: the public key of each who may listen


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """``[metrics]``: who may scrape. Beyond this computer a token is asked for, and TLS keeps it from being read."""

    bind: Annotated[str, Host()] = "127.0.0.1"
    token_file: Annotated[Path | None, Folder()] = None  # its first line; `Authorization: Bearer`
    certificate_file: Annotated[Path | None, Folder()] = None  # TLS: PEM, with what is between it and the root
    certificate_key_file: Annotated[Path | None, Folder()] = None

    def conflicts(self, port: int) -> Iterator[str]:
        """What keeps them from being served on ``port``, a "key: what to do" each."""
        if port and not is_loopback(self.bind) and self.token_file is None:
            yield (
                f"metrics.token_file: is missing, and other machines could read the metrics at {self.bind};"
                " write a long random line into a file that nobody else may read, and name it here"
            )
        if port and (file := self.token_file) is not None:
            yield from tried(lambda: keys.secret_line(file, "metrics.token_file"))
        if bool(self.certificate_file) != bool(self.certificate_key_file):
            missing = "certificate_key_file" if self.certificate_file else "certificate_file"
            yield f"metrics.{missing}: is missing; TLS needs the certificate and its key"


def tried(use: Callable[[], object]) -> Iterator[str]:
    """What is wrong with it, if anything."""
    try:
        use()
    except UserError as error:
        yield str(error)
