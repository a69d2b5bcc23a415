"""The recipe: adapt a segmentation network from one driving domain to another with BiCL.

Run from the checkout, for instance ``python -m reference.demo``. Every room imports only rooms
that stand before it in this list, and every file of a room only files that stand before it in the
list of its ``__init__.py``, so all can be read from top to bottom:

    atomic          files that are whole or absent
    progress        bars and warnings
    provenance      versions and settings behind a result
    data            classes, readers of the data sets, batches
    synthetic       drawn street scenes, source and target
    networks        the networks, all with one output
    training        settings, loss terms, both stages
    methods         related methods, one short file each
    evaluation      confusion matrix, IoU, how right pseudo labels are
    experiments     an experiment's data, its rows and tables
    pictures        predictions, curves, prototypes, the pages of reports
    engine          runs on real data, from settings to checkpoints
    check_data      the command that checks downloaded sets
    prepare         the command that makes a smaller copy of them
    train           the command that trains on real data
    report          the command that makes a page about such a run
    demo            the command that newcomers run
    ablate          the command that switches every ingredient off in turn
    export          the command that turns a checkpoint into weights and a card
    score           the command that scores a network as published tables do
    predict         the command that labels a folder of images
"""

import sys
from importlib.util import find_spec

_EXTRA = ("PIL", "cv2", "jinja2", "matplotlib", "numpy", "rich", "safetensors", "tyro")
_MISSING = [name for name in _EXTRA if find_spec(name) is None]
# The name of a command that is still being looked up is "-m".
if _MISSING and sys.argv[:1] == ["-m"]:
    sys.exit(
        f"reference: expected the packages of the recipe, got no {', '.join(_MISSING)}. "
        "Hint: pip install 'protocontrast[reference]'."
    )
