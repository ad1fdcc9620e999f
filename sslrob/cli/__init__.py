"""The command line: parse, call, print.  Nothing here imports torch before a command needs it."""

from __future__ import annotations

import sys
import traceback
from typing import Annotated

import typer

from sslrob.cli.doctor import doctor
from sslrob.cli.evaluate import evaluate
from sslrob.cli.grouped import Grouped
from sslrob.cli.harden import harden
from sslrob.cli.plugins import LISTED, listing
from sslrob.cli.plugins import app as plugins
from sslrob.cli.report import report
from sslrob.cli.stopping import stoppable
from sslrob.cli.study import app as study
from sslrob.cli.telling import text, told
from sslrob.cli.train import train
from sslrob.cli.zoo import app as zoo
from sslrob.cli.zoo_add import add
from sslrob.cli.zoo_fetch import fetch, prune
from sslrob.cli.zoo_verify import verify
from sslrob.errors import SslrobError

STOPPED = 130  # the shell's code for Ctrl-C
TRACEBACK = "--traceback"

app = typer.Typer(
    name="sslrob",
    help="How robust are self-supervised vision backbones?  Try: sslrob eval --backbone swav --task detection --attack pgd",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
app.command("eval", cls=Grouped)(evaluate)
app.command("train")(train)
app.command("harden", cls=Grouped)(harden)
app.add_typer(study, name="study")
app.command("report")(report)
zoo.command("fetch")(fetch)
zoo.command("verify")(verify)
zoo.command("add")(add)
zoo.command("prune")(prune)
app.add_typer(zoo, name="zoo")
for kind in LISTED:
    app.add_typer(listing(kind), name=f"{kind}s")
app.add_typer(plugins, name="plugins")
app.command("doctor")(doctor)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"sslrob {version('sslrob')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
    show_traceback: Annotated[bool, typer.Option(TRACEBACK, help="With an error, show where it was raised; stands anywhere.")] = False,
) -> None:
    del version, show_traceback  # the first is done by its callback, the second by main()


def main() -> None:
    """Run the command line: every error becomes a few lines on stderr and an exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """The exit code of a command: 0 done, 1 failed while running, 2 asked wrongly, 3 result refused, 4 suspect, 130 stopped."""
    wants_traceback = TRACEBACK in arguments
    try:
        with stoppable():
            code = app([a for a in arguments if a != TRACEBACK], prog_name="sslrob", standalone_mode=False)
        if code == STOPPED:
            raise KeyboardInterrupt
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except KeyboardInterrupt:
        typer.echo("\nstopped; the same command goes on where it stopped", err=True)
        return STOPPED
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stdout = None  # nothing is left to flush at exit
        return 0
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(str(error))
            return SslrobError.exit_code
        if wants_traceback:
            traceback.print_exception(error)
        failure = told(error)
        typer.echo(text(failure), err=True)
        return failure.exit_code
