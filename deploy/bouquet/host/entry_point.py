"""Where the `bouquet` command starts. It imports little, so that Ctrl-C is reported in one line from the start."""

from bouquet.errors import report_errors
from bouquet.host.interrupts import ends_at_once, report_interrupts
from bouquet.host.output_encoding import replace_unprintable


def entry() -> None:
    """Run the command line; report an error or an interrupt in one line and exit with its code."""
    replace_unprintable()
    report_interrupts(lambda: report_errors(_main))


def _main() -> None:
    with ends_at_once("interrupted"):
        from bouquet.host.command_line import main  # noqa: PLC0415  takes a third of a second, in which Ctrl-C may come
    main()
