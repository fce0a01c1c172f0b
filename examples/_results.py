"""Where an example keeps what it has finished, so that an interrupted run goes on."""

import json
import pathlib


def folder_of(options, name, *free) -> pathlib.Path:
    """The folder of an example's results; ends the program where it holds those of other settings.

    Args:
        options: of the command line, with `output` and `quick`.
        name: of the folder where `output` is None; quick results have one of their own in it.
        *free: names of options that say which rows to make, and not how.
    """
    folder = options.output or pathlib.Path(name) / ("quick" if options.quick else "full")
    given = {key: value for key, value in vars(options).items() if key not in ("output", *free)}
    text, path = json.dumps(given, indent=1, default=str), folder / "settings.json"
    if path.exists() and path.read_text() != text:
        raise SystemExit(
            f"{folder} holds results of other settings, which {path.name} in it lists. Give "
            "another --output, or delete it."
        )
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return folder
