"""The recipe: adapt a segmentation network from one driving domain to another with BiCL.

Run from the checkout, for instance ``python -m reference.train toy``. Read from the top:

    train           the loop of every run
    bicl            the method, one line per equation
    method          what a method is to the loop
    methods         related methods, one short file each
    settings, presets, static_labels
    data            layouts of data sets, classes, batches
    networks        the networks, all with one output
    evaluation      scores as published tables take them
    run             folder, ranks, state, report, alarms, panels of a run
    pictures        the page about runs
    synthetic       drawn street scenes, source and target
    experiments     rows and tables; with the commands demo and ablate
    check_data, prepare, report, export, score, predict: the other commands
"""

import signal
import sys
from importlib.util import find_spec

_EXTRA = ("PIL", "cv2", "jinja2", "numpy", "rich", "safetensors", "tyro")
_MISSING = [name for name in _EXTRA if find_spec(name) is None]
# The name of a command that is still being looked up is "-m".
if _MISSING and sys.argv[:1] == ["-m"]:
    sys.exit(
        f"reference: expected the packages of the recipe, got no {', '.join(_MISSING)}. "
        "Hint: pip install 'protocontrast[reference]'."
    )
if {"-h", "--help"} & {*sys.argv}:
    # `--help | head` closes the pipe early, which is no error.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
