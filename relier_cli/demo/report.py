"""The account as the user sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from relier_cli.demo.account import Account
from relier_cli.demo.run import Demo


@dataclass(frozen=True)
class Report:
    """The account of a demo, and what else is worth telling.

    Parameters:
      account: of the demo.
      demo: which one.
      seed: what chose its kills.
      seconds: how long it took in all.
    """

    account: Account
    demo: Demo
    seed: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return it all for `--json`."""
        deaths = [
            {
                "worker": death.worker.place,
                "pid": death.worker.effects.pid,
                "after_tasks": death.after,
                "orphans": len(death.orphans),
                "recovery_seconds": [round(seconds, 4) for seconds in death.recoveries(self.demo.effects)],
            }
            for death in self.demo.killer.deaths
        ]
        return {**self.account.as_dict(), "deaths": deaths, "seed": self.seed, "seconds": round(self.seconds, 2)}

    def show(self, console: Console) -> None:
        """Print it."""
        console.print()
        console.print(self._comparison())
        console.print()
        console.print(self._balance())
        console.print()
        for line in self.account.disagreements:
            console.print(Text(line, style="bold red"), soft_wrap=True)
        console.print(self._verdict(), soft_wrap=True)

    def _comparison(self) -> Table:
        table = Table.grid(padding=(0, 3))
        table.add_row("", Text("by tasks", justify="right"), Text("directly", justify="right"))
        tasks, direct = self.account.tasks, self.account.direct
        for name in ("files", "bytes", "lines", "tokens", "not_parsed"):
            one, other = getattr(tasks, name), getattr(direct, name)
            table.add_row(name.replace("_", " "), *_pair(f"{one:,}", f"{other:,}", one == other))
        table.add_row("sha-256", *_pair(tasks.digest[:16], direct.digest[:16], tasks.digest == direct.digest))
        return table

    def _balance(self) -> Table:
        account = self.account
        table = Table.grid(padding=(0, 3))
        ends = f"{account.completed} completed + {account.dead} dead + {account.discarded} discarded"
        table.add_row("pushed", f"{account.pushed} = {ends}")
        table.add_row("runs", f"{account.runs} = {account.runs - account.reruns} + {account.reruns} repeated")
        table.add_row("crashes", f"{account.crashes} runs ended with their worker, by {account.kills} SIGKILLs")
        table.add_row("recoveries", f"{account.recoveries} tasks put back{self._times()}")
        return table

    def _times(self) -> str:
        effects = self.demo.effects
        firsts = [times[0] for death in self.demo.killer.deaths if (times := death.recoveries(effects))]
        return "; first run again after " + ", ".join(f"{seconds:.2f} s" for seconds in firsts) if firsts else ""

    def _verdict(self) -> Text:
        account, told = self.account, f" ({self.seconds:.1f} s, --seed {self.seed})"
        if account.lacks_kills and not account.disagreements:
            happened = f"only {account.kills} of {account.kills_wanted} kills happened before so small a job was over"
            return Text(
                f"All agree, but {happened}: take more files (--limit) or fewer kills (--kills)." + told, "yellow"
            )
        if account.agrees:
            return Text("All agree: no task was lost, and every repeated run is explained by a crash." + told, "green")
        return Text(f"They do not agree. The logs are kept in {self.demo.folder}" + told, "bold red")


def _pair(one: str, other: str, equal: bool) -> tuple[Text, Text]:
    style = "" if equal else "bold red"
    return Text(one, style, justify="right"), Text(other, style, justify="right")
