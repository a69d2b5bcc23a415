"""The recipe: adapt a segmentation network from one driving domain to another with BiCL.

Run from the checkout, for instance ``python -m reference.demo``. Every file imports only files
that stand before it in this list, so it can be read from top to bottom:

    atomic          files that are whole or absent
    progress        bars and warnings
    classes         names, colours and numberings of the 19 classes
    synthetic       drawn street scenes, source and target
    picture_files   images and labels as PNG, checked
    datasets        readers of GTA5 and Cityscapes
    transforms      batches keyed by seed, iteration and slot
    config          every setting of a run
    model           the network
    losses          cross-entropy and entropy
    pseudo_labels   static pseudo labels
    evaluate        confusion matrix and IoU
    alarms          label-free signs of a run that goes wrong
    history         what a run reports while it trains
    adapt_step      the loss terms of one step: the method on one screen
    train           both stages
    scenario        the data of an experiment
    label_accuracy  how right pseudo labels are, for reports only
    rows            one row of a result table
    verdict         what a result says in words
    visualise       pictures of predictions
    charts          curves and bars
    report          one self-contained page
    provenance      versions and settings behind a result
    demo            the command that newcomers run
    matrix          every ingredient switched off in turn
    tables          result tables in Markdown
    ablate          the command that measures the matrix
"""
